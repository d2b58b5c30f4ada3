"""What a program has worked out once, for all of its instances."""

from collections.abc import Callable
from dataclasses import dataclass

from wasmpool_agent.wasmtime_cells import Values
from wasmpool_api.wasm.plans import Item


@dataclass(frozen=True, slots=True)
class Making:
    """How one core instance is made. `module`: the address of a module, or with `linked` of a linked one.

    `imports`: so many externs, which `wanted` says, at offset `externs` of those in the cells. `slots`: (slot of the
    glue's table, name of the export that belongs there).
    """

    number: int
    module: int
    linked: bool
    imports: int
    wanted: bytes
    externs: int
    slots: tuple[tuple[int, bytes], ...]


@dataclass(frozen=True, slots=True)
class Exported:
    """How one export is called. `allocator`: the glue's export that gives memory for its parameters."""

    item: Item
    context: int
    component: int
    params: Values
    results: Values
    lower: Callable[..., None]
    lift: Callable[..., object] | None
    in_memory: tuple[int, int] | None
    returned: tuple[int, int] | None
    allocator: str
    post_return: Item | None
    count: int
