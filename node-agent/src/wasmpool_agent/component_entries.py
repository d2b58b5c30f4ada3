"""Whether what a component exports to be called can be called so: names alone do not say.

wasi:http/incoming-handler   handle: func(request: own<...>, response-out: own<...>)
wasi:cli/run                 run: func() -> result
"""

from collections.abc import Callable
from typing import Final

import wasmtime
from wasmtime import component as wit

from wasmpool_agent.wasi.interfaces import HANDLER, RUN, VERSION


def entry_problem(engine: wasmtime.Engine, component: wit.Component) -> str:
    """A sentence that names what is wrong; empty if nothing is."""
    for name, extern in component.type.exports(engine).items():
        interface, _, version = name.partition("@")
        wanted = _ENTRIES.get(interface)
        if (
            wanted is None
            or not version.startswith(f"{VERSION}.")
            or not isinstance(extern.ty, wit.ComponentInstanceType)
        ):
            continue
        function, fits, shown = wanted
        found = extern.ty.exports(engine).get(function)
        if found is None or not isinstance(found.ty, wit.FuncType):
            return f"the component exports {name} without its function {function}, which is {shown}"
        if not fits(found.ty):
            return f"the component exports {name}, whose function {function} is of another type than {shown}"
    return ""


def _is_handle(kind: wit.FuncType) -> bool:
    return len(kind.params) == 2 and all(isinstance(it, wit.OwnType) for _, it in kind.params) and kind.result is None


def _is_run(kind: wit.FuncType) -> bool:
    result = kind.result
    return not kind.params and isinstance(result, wit.ResultType) and result.ok is None and result.err is None


_ENTRIES: Final[dict[str, tuple[str, Callable[[wit.FuncType], bool], str]]] = {
    HANDLER: ("handle", _is_handle, "func(request: own<incoming-request>, response-out: own<response-outparam>)"),
    RUN: ("run", _is_run, "func() -> result"),
}
