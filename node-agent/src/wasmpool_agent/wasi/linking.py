"""Puts preview 1 on a linker, and says what a module wants that nobody provides."""

from collections.abc import Iterable, Mapping
from typing import Final

import wasmtime

from wasmpool_agent.wasi.errno import WasiError
from wasmpool_agent.wasi.guest import Guest
from wasmpool_agent.wasi.preview1 import FUNCTIONS, Function
from wasmpool_agent.wasi.signatures import MODULE, SIGNATURES, WITHOUT_RESULT
from wasmpool_agent.wasmtime_async import HostFunctions, Immediate, Wait, Waiting

_MAY_WAIT: Final = frozenset({"poll_oneoff", "fd_write"})


def link_preview1(functions: HostFunctions[Guest], table: Mapping[str, Function] = FUNCTIONS) -> None:
    """Defines all of wasi_snapshot_preview1. Once per engine."""
    for name, params in SIGNATURES.items():
        if name in _MAY_WAIT:
            functions.define_waiting(MODULE, name, params, _waiting(functions, table[name]))
        else:
            functions.define(MODULE, name, params, name not in WITHOUT_RESULT, _immediate(functions, table[name]))


def unprovided(imports: Iterable[tuple[str, str, str]]) -> str:
    """(module, name, kind) of each import -> a sentence naming those that no host interface provides, or ""."""
    missing = [
        f"{module}.{name} ({kind})"
        for module, name, kind in imports
        if not (module == MODULE and name in SIGNATURES and kind == "function")
    ]
    if not missing:
        return ""
    shown = ", ".join(missing[:10]) + (f" and {len(missing) - 10} more" if len(missing) > 10 else "")
    return f"module imports {shown}, which no host interface provides; there is {MODULE}"


def _waiting(functions: HostFunctions[Guest], function: Function) -> Waiting:
    def call(caller: int, parameters: tuple[int, ...]) -> int | Wait:
        guest = functions.guest
        guest.exported_memory.enter(caller)
        try:
            return function(guest, *parameters)
        except WasiError as error:
            return error.errno

    return call


def _immediate(functions: HostFunctions[Guest], function: Function) -> Immediate:
    def call(caller: int, parameters: tuple[int, ...]) -> int:
        guest = functions.guest
        guest.exported_memory.enter(caller)
        try:
            errno = function(guest, *parameters)
        except WasiError as error:
            return error.errno
        assert isinstance(errno, int), "a function that may wait is in _MAY_WAIT"  # noqa: S101
        return errno

    return call


def imports_of(module: wasmtime.Module) -> list[tuple[str, str, str]]:
    """(module, name, kind) of each import, as `unprovided` takes them."""
    kinds = ((wasmtime.FuncType, "function"), (wasmtime.MemoryType, "memory"), (wasmtime.TableType, "table"))
    return [
        (
            import_.module,
            import_.name or "",
            next((kind for type_, kind in kinds if isinstance(import_.type, type_)), "global"),
        )
        for import_ in module.imports
    ]
