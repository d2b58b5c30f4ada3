"""What Wasmtime says of a component: whether it takes it, and how much it makes.

How much, Wasmtime says where it refuses: under a pool that allows nothing, "transitively contains 3 memories".
"""

import re
from typing import Final

import wasmtime
from wasmtime import _bindings as bindings
from wasmtime import component as wasmtime_component

from tests.fuzz.wasm_corpus import all_features
from wasmpool_api.wasm import inspect

_COUNT: Final = re.compile(r"transitively contains (\d+) (core module instances|Wasm linear memories|tables)")
_PLENTY: Final = 1_000_000


def everything() -> wasmtime.Config:
    """Wasmtime with every proposal that it knows, those of components too."""
    config = all_features()
    for name in dir(bindings):
        if name.startswith("wasmtime_config_wasm_component_model_") and name.endswith("_set"):
            getattr(bindings, name)(config.ptr(), True)
    return config


def takes_component(engine: wasmtime.Engine, component: bytes) -> bool:
    """Whether Wasmtime compiles it."""
    return refusal_of_wasmtime(engine, component) is None


def refusal_of_wasmtime(engine: wasmtime.Engine, component: bytes) -> str | None:
    """Why it does not compile it."""
    try:
        wasmtime_component.Component(engine, component).close()
    except wasmtime.WasmtimeError as error:
        return str(error)
    return None


class Counter:
    """Engines whose pools allow nothing of one thing, and plenty of the others."""

    def __init__(self) -> None:
        self._engines = [_engine_without(which) for which in _SETTERS]

    def makes(self, component: bytes) -> tuple[int, int, int] | None:
        """Core instances, memories and tables, as Wasmtime counts them in a component that it takes.

        None where its pool takes no such component at all: one with a shared memory, one with a huge table.
        """
        instances, memories, tables = (_number(refusal_of_wasmtime(engine, component)) for engine in self._engines)
        return None if instances is None or memories is None or tables is None else (instances, memories, tables)


def ours(component: bytes) -> tuple[int, int, int]:
    """The same as inspection counts it."""
    found = inspect(component).component
    assert found is not None
    return found.needs.core_instances, found.needs.memories, found.needs.tables


_SETTERS: Final = ("core_instances", "memories", "tables")


def _number(message: str | None) -> int | None:
    if message is None:
        return 0
    found = _COUNT.search(message)
    return int(found[1]) if found is not None else None


def _engine_without(which: str) -> wasmtime.Engine:
    config = everything()
    config.memory_reservation = 1 << 32
    pool = bindings.wasmtime_pooling_allocation_config_new()
    for setter in _SETTERS:
        limit = 0 if setter == which else _PLENTY
        getattr(bindings, f"wasmtime_pooling_allocation_config_max_{setter}_per_component_set")(pool, limit)
    for name, value in (
        ("total_core_instances", 1),
        ("total_component_instances", 1),
        ("total_memories", 2),
        ("total_tables", 2),
        ("total_stacks", 1),
        ("total_gc_heaps", 0),
        ("max_memories_per_module", 100),
        ("max_tables_per_module", 100),
        ("table_elements", 1_000_000),
        ("max_memory_size", 1 << 32),
        ("max_core_instance_size", 1 << 24),
        ("max_component_instance_size", 1 << 24),
    ):
        getattr(bindings, f"wasmtime_pooling_allocation_config_{name}_set")(pool, value)
    bindings.wasmtime_pooling_allocation_strategy_set(config.ptr(), pool)
    bindings.wasmtime_pooling_allocation_config_delete(pool)
    return wasmtime.Engine(config)
