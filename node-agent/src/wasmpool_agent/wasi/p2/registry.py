"""The functions that components may import, by interface and name without a version: "wasi:io/poll#poll"."""

from collections.abc import Callable
from typing import Any, Final, TypeVar

from wasmpool_agent.wasmtime_async import Later

__all__ = ["FUNCTIONS", "MAY_WAIT", "Function", "Later", "err", "function", "ok"]

Function = Callable[..., object]
"""(host, *lifted arguments) -> the lifted result, or Later. Raises HostTrap to end the guest."""
FUNCTIONS: Final[dict[str, Function]] = {}
MAY_WAIT: Final[set[str]] = set()
"""Names of functions that may return Later."""

_F = TypeVar("_F", bound=Function)


def function(name: str, *, may_wait: bool = False) -> Callable[[_F], _F]:
    """Registers a function under this name."""

    def register(made: _F) -> _F:
        assert name not in FUNCTIONS, name  # noqa: S101 - two of one name are a slip
        FUNCTIONS[name] = made
        if may_wait:
            MAY_WAIT.add(name)
        return made

    return register


def ok(value: object = None) -> tuple[bool, Any]:
    """The good case of a result."""
    return True, value


def err(value: object = None) -> tuple[bool, Any]:
    """The other one."""
    return False, value
