"""What the compile side hands to the worker beside compiled code: how the core modules of one component go together."""

import msgspec

from wasmpool_agent.canonical.layout import Layouts
from wasmpool_agent.canonical.values import Unsupported
from wasmpool_api.wasm.interfaces import Interface
from wasmpool_api.wasm.plans import NONE, Item, Lower, Options, Plan

START = "start of wasmpool"
"""The export that stands for a module's start section."""


class Step(msgspec.Struct, frozen=True, array_like=True):
    """One core instance: `number` of the plan, `part`: its module.

    `imports`: where each comes from. `starts`: whether it has START. `tables`: slots of the glue's table that its
    exports belong into, as (slot, name).
    """

    number: int
    part: int
    imports: tuple[Item, ...]
    starts: bool
    slots: tuple[tuple[int, str], ...]


class Linked(msgspec.Struct, frozen=True, array_like=True):
    """Part 0 is the glue. `plain`: host functions that no guest code stands before; `waiting`: the others.

    `slots`: of reallocs and destructors in the glue's table. `names`: what the parts' imports are called, for each part
    (module, name). `glue_imports`: (name, params, results).
    """

    plan: Plan
    steps: tuple[Step, ...]
    plain: tuple[int, ...]
    waiting: tuple[int, ...]
    slots: dict[str, int]
    names: tuple[tuple[tuple[str, str], ...], ...]
    glue_imports: tuple[tuple[str, str, str], ...]
    tables: int


def encode(linked: Linked) -> bytes:
    """For `decode`."""
    return msgspec.msgpack.encode(linked)


def decode(data: bytes | memoryview) -> Linked:
    """Raises msgspec.DecodeError, ValidationError."""
    return msgspec.msgpack.decode(data, type=Linked)


def function_key(lower: Lower) -> str:
    """What the function is registered as: without a version."""
    return f"{Interface.parse(lower.interface).name}#{lower.name}" if lower.interface else lower.name


def slot_key(item: Item) -> str:
    """Of `Linked.slots`."""
    return f"{item.instance} {item.name}"


def check_options(layouts: Layouts, options: Options, types: tuple[int, ...], *, realloc: bool, name: str) -> None:
    """Raises Unsupported where memory is needed that is not there."""
    if any(layouts.points(each) for each in types) and options.memory is None:
        raise Unsupported(f"{name} passes strings or lists without a memory")
    if realloc and options.realloc is None:
        raise Unsupported(f"{name} passes strings or lists to a guest without a realloc")
    for item in (options.memory, options.realloc, options.post_return):
        if item is not None and item.instance == NONE:
            raise Unsupported(f"{name} has the host give its memory, realloc or post-return")
