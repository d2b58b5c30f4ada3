"""The table of preview 1's functions by name, and how one puts itself there."""

from collections.abc import Callable
from typing import Final

from wasmpool_agent.wasi.errno import Errno
from wasmpool_agent.wasi.guest import Guest
from wasmpool_agent.wasmtime_async import Wait

Function = Callable[..., Errno | Wait]
"""(guest, *parameters) -> an errno, or something to wait for. Raises WasiError, HostTrap."""
FUNCTIONS: Final[dict[str, Function]] = {}


def function(made: Function) -> Function:
    """Registers it under its own name."""
    assert made.__name__ not in FUNCTIONS, made.__name__  # noqa: S101 - two of one name are a slip
    FUNCTIONS[made.__name__] = made
    return made


def refuse(names: str, errno: Errno) -> None:
    """Registers functions whose first parameter is a descriptor: one that there is gets `errno`."""

    def refusal(guest: Guest, fd: int, *_rest: int) -> Errno:
        guest.descriptor(fd)
        return errno

    FUNCTIONS.update(dict.fromkeys(names.split(), refusal))
