"""Engine configurations: the features that guests may use, with the allocator's tunables on top.

A bad configuration does not raise: it aborts the process in which the Engine is made. So limits are checked before, by
the allocators, and `probe` makes each configuration once in a child, which is this module, before a worker uses it.
"""

import sys
from dataclasses import asdict, replace
from importlib.metadata import version
from typing import Final

import msgspec
import wasmtime

from wasmpool_agent.allocators import (
    AllocatorKind,
    EngineRefusedError,
    InstanceAllocator,
    allocator_for,
    allocator_kind,
    tunables_for,
)
from wasmpool_agent.region import Region, ReserveError
from wasmpool_agent.slots import SlotTable
from wasmpool_agent.wasmtime_private import Tunables, apply_tunables, disable_concurrency
from wasmpool_api.codec import decode
from wasmpool_api.instance_pool import Backing, InstancePoolSpec
from wasmpool_api.region import region_shape
from wasmpool_api.sizes import BASE_PAGE_BYTES

DEFAULT_TUNABLES: Final = Tunables(
    memory_reservation=4 * 1024**3,
    memory_guard_size=32 * 1024**2,
    memory_reservation_for_growth=2 * 1024**3,
    memory_may_move=True,
    memory_init_cow=True,
)
"""Wasmtime's own, on 64-bit machines: where adjust_tunables begins."""

_FEATURES: Final = {
    "epoch_interruption": True,
    "signals_based_traps": True,
    "gc_support": False,
    "shared_memory": False,
    "wasm_component_model": True,
    "wasm_custom_page_sizes": False,
    "wasm_exceptions": False,
    "wasm_function_references": False,
    "wasm_gc": False,
    "wasm_memory64": False,
    "wasm_stack_switching": False,
    "wasm_threads": False,
    "wasm_wide_arithmetic": False,
}
"""Without GC no heap takes a slot unasked. Traps by signals keep the Spectre masking of bounds checks."""


def _config(tunables: Tunables) -> wasmtime.Config:
    config = wasmtime.Config()
    for feature, enabled in _FEATURES.items():
        setattr(config, feature, enabled)
    # What a module may declare is for the module limits to say, with a reason; not for the compiler.
    config.wasm_multi_memory = True
    disable_concurrency(config)
    apply_tunables(config, tunables)
    return config


def engine_config(allocator: InstanceAllocator) -> wasmtime.Config:
    """For the engine of the worker that the allocator was made for."""
    config = _config(allocator.adjust_tunables(DEFAULT_TUNABLES))
    allocator.install(config)
    return config


def compiler_config(spec: InstancePoolSpec, backing: Backing | None = None) -> wasmtime.Config:
    """For a compiler's engine: its code runs on the engines of `engine_config`. `backing`: see allocator_kind."""
    return _config(tunables_for(allocator_kind(spec, backing), DEFAULT_TUNABLES))


def settings_key(spec: InstancePoolSpec, backing: Backing | None = None) -> str:
    """Readable and stable: all settings that decide whether compiled code can be loaded. Part of the cache's key."""
    tunables = tunables_for(allocator_kind(spec, backing), DEFAULT_TUNABLES)
    settings = {**_FEATURES, **asdict(tunables)}
    text = ",".join(f"{name}={int(value)}" for name, value in sorted(settings.items()))
    # NB: the agent's own, for it changes modules before they are compiled: see data_segments.
    return f"agent={version('wasmpool-node-agent')},wasmtime={version('wasmtime')},{text}"


_GUEST: Final = """(module (memory (export "m") 1) (data (i32.const 16) "probe")
  (func (export "run") (drop (memory.grow (i32.const 0)))))"""


def _probe(spec: InstancePoolSpec, backing: Backing | None) -> None:
    """Makes the engine over memory of the same shape that takes nothing, and runs one guest in it."""
    shape = region_shape(spec, backing)
    # All sizes stay those of the pool, but the pages under them are ordinary ones that are touched only where used.
    stand_in = replace(shape, backing=Backing.BASE_PAGES, page_bytes=BASE_PAGE_BYTES)
    with Region.reserve(stand_in) as region, SlotTable.create(shape.slots) as table:
        region.shape = replace(stand_in, backing=shape.backing)
        allocator = allocator_for(spec, region, table, worker_id=1)
        engine = wasmtime.Engine(engine_config(allocator))
        code = wasmtime.Module(wasmtime.Engine(compiler_config(spec, backing)), _GUEST).serialize()
        pre = wasmtime.Linker(engine).instantiate_pre(wasmtime.Module.deserialize(engine, code))
        slot = allocator.allocate(1)
        store = wasmtime.Store(engine)
        store.set_epoch_deadline(1_000_000)
        with allocator.initialize(slot):
            run = pre.instantiate(store).exports(store)["run"]
        if not isinstance(run, wasmtime.Func):
            raise TypeError("the probe's guest exports a function")
        run(store)
        store.close()
        allocator.deallocate(slot)
        if allocator_kind(spec, backing) in {AllocatorKind.COMPACT, AllocatorKind.GUARDED}:
            region.prove_clean(slot.index)


def main() -> int:
    """The probe's child: spec as JSON on standard input; a refusal on standard error and status 1. A bug aborts."""
    backing = Backing(sys.argv[1]) if len(sys.argv) > 1 and sys.argv[1] else None
    try:
        _probe(decode(InstancePoolSpec, msgspec.json.decode(sys.stdin.buffer.read())), backing)
    except (EngineRefusedError, ReserveError, wasmtime.WasmtimeError, OSError, ValueError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
