"""What Wasmtime's C API has and its Python package does not show. The only module that imports its bindings.

Traps, for whoever adds to this: an exception in a callback aborts the process or corrupts it; a bad engine setting
aborts the process when the Engine is made; callbacks must outlive every engine, module and store that uses them.
"""

import ctypes
from dataclasses import dataclass
from typing import Any

import wasmtime
from wasmtime import _bindings, _ffi

from wasmpool_agent import _native

bindings: Any = _bindings
"""Generated, and typed for ctypes' own needs only: what is said about types begins in this module."""
dll: Any = _ffi.dll


@dataclass(frozen=True, slots=True)
class Tunables:
    """What decides how memory accesses are compiled (the RFC's word). Bytes. Code runs only where all are equal."""

    memory_reservation: int
    memory_guard_size: int
    memory_reservation_for_growth: int
    memory_may_move: bool
    memory_init_cow: bool


@dataclass(frozen=True, slots=True)
class PoolingOptions:
    """Wasmtime's own pooling allocator. Counts are per engine, so per worker; sizes are bytes."""

    core_instances: int
    component_instances: int
    memories: int
    tables: int
    stacks: int
    memory_bytes: int
    memories_per_module: int
    tables_per_module: int
    table_elements: int
    keep_resident_bytes: int
    table_keep_resident_bytes: int
    warm_slots: int


def error_new_address() -> int:
    """Where wasmtime_error_new is: the C extension makes its refusals with it, for it does not link to Wasmtime."""
    address = ctypes.cast(dll.wasmtime_error_new, ctypes.c_void_p).value
    if address is None:
        raise RuntimeError("wasmtime's library has no wasmtime_error_new")
    return address


def apply_tunables(config: wasmtime.Config, tunables: Tunables) -> None:
    """Puts them into an engine's configuration."""
    config.memory_reservation = tunables.memory_reservation
    config.memory_guard_size = tunables.memory_guard_size
    config.memory_reservation_for_growth = tunables.memory_reservation_for_growth
    config.memory_may_move = tunables.memory_may_move
    config.memory_init_cow = tunables.memory_init_cow


def disable_concurrency(config: wasmtime.Config) -> None:
    """Leaves out what only component-model concurrency needs, in every store and call."""
    bindings.wasmtime_config_concurrency_support_set(config.ptr(), False)


def install_memory_creator(config: wasmtime.Config, creator: _native.MemoryCreator) -> None:
    """Lets the creator make all linear memories. NB: ignored without a word once a pooling strategy is set."""
    env, new_memory, finalizer = creator.callbacks()
    description = bindings.wasmtime_memory_creator_t(
        env=env,
        new_memory=ctypes.cast(new_memory, bindings.wasmtime_new_memory_callback_t),
        finalizer=ctypes.cast(finalizer, ctypes.CFUNCTYPE(None, ctypes.c_void_p)),
    )
    bindings.wasmtime_config_host_memory_creator_set(config.ptr(), ctypes.byref(description))


def install_stack_creator(config: wasmtime.Config, creator: _native.StackCreator) -> None:
    """Lets the creator make the stacks of asynchronous guests. NB: ignored as install_memory_creator is."""
    env, new_stack, finalizer = creator.callbacks()
    description = bindings.wasmtime_stack_creator_t(
        env=env,
        new_stack=ctypes.cast(new_stack, bindings.wasmtime_new_stack_memory_callback_t),
        finalizer=ctypes.cast(finalizer, ctypes.CFUNCTYPE(None, ctypes.c_void_p)),
    )
    bindings.wasmtime_config_host_stack_creator_set(config.ptr(), ctypes.byref(description))


def install_pooling(config: wasmtime.Config, options: PoolingOptions) -> None:
    """Sets Wasmtime's pooling strategy. NB: what does not fit the address space aborts when the Engine is made."""
    pooling = bindings.wasmtime_pooling_allocation_config_new()
    try:
        for setter, value in (
            (bindings.wasmtime_pooling_allocation_config_total_core_instances_set, options.core_instances),
            (bindings.wasmtime_pooling_allocation_config_total_component_instances_set, options.component_instances),
            (bindings.wasmtime_pooling_allocation_config_total_memories_set, options.memories),
            (bindings.wasmtime_pooling_allocation_config_total_tables_set, options.tables),
            (bindings.wasmtime_pooling_allocation_config_total_stacks_set, options.stacks),
            (bindings.wasmtime_pooling_allocation_config_total_gc_heaps_set, 0),
            (bindings.wasmtime_pooling_allocation_config_max_memory_size_set, options.memory_bytes),
            (bindings.wasmtime_pooling_allocation_config_max_memories_per_module_set, options.memories_per_module),
            (bindings.wasmtime_pooling_allocation_config_max_tables_per_module_set, options.tables_per_module),
            (bindings.wasmtime_pooling_allocation_config_table_elements_set, options.table_elements),
            (bindings.wasmtime_pooling_allocation_config_linear_memory_keep_resident_set, options.keep_resident_bytes),
            (bindings.wasmtime_pooling_allocation_config_table_keep_resident_set, options.table_keep_resident_bytes),
            (bindings.wasmtime_pooling_allocation_config_max_unused_warm_slots_set, options.warm_slots),
        ):
            setter(pooling, value)
        bindings.wasmtime_pooling_allocation_strategy_set(config.ptr(), pooling)
    finally:
        bindings.wasmtime_pooling_allocation_config_delete(pooling)
