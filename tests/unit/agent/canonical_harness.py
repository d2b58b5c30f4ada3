"""Components from text, run by the host of the canonical ABI; and the text of components that pass values on."""

import threading
from collections.abc import Callable, Iterator, Mapping, Set
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Protocol

import wasmtime

from wasmpool_agent.canonical import Instance, Program, compile_component
from wasmpool_agent.canonical.layout import Layouts
from wasmpool_agent.engine import DEFAULT_TUNABLES, _config
from wasmpool_agent.wasmtime_async import Wait
from wasmpool_api.wasm.plans import NONE, FunctionType, Type

CORE_TYPES = {"I": "i32", "Q": "i64", "f": "f32", "d": "f64"}
POLLS_MAX = 10_000
RESULT_AT = 1024
REALLOC = """
    (memory (export "memory") 4)
    (global $top (mut i32) (i32.const 4096))
    (func (export "realloc") (param i32 i32 i32 i32) (result i32) (local i32)
      (local.set 4 (i32.and (i32.add (global.get $top) (i32.sub (local.get 2) (i32.const 1)))
                            (i32.sub (i32.const 0) (local.get 2))))
      (global.set $top (i32.add (local.get 4) (local.get 3)))
      (block (loop
        (br_if 1 (i32.le_u (global.get $top) (i32.mul (memory.size) (i32.const 65536))))
        (br_if 0 (i32.ne (memory.grow (i32.const 1)) (i32.const -1)))
        unreachable))
      (memory.copy (local.get 4) (local.get 0)
        (select (local.get 1) (local.get 3) (i32.lt_u (local.get 1) (local.get 3))))
      (local.get 4))"""

Functions = Mapping[str, Callable[..., object]]


class Polled(Protocol):
    """A call of either host of components."""

    @property
    def waits_for(self) -> Wait | None:
        """See ComponentCall."""
        ...

    def poll(self) -> bool:
        """See ComponentCall."""
        ...

    def close(self) -> None:
        """See ComponentCall."""
        ...


def engine() -> wasmtime.Engine:
    """With the settings of a worker's, and memory from anywhere."""
    return wasmtime.Engine(_config(DEFAULT_TUNABLES))


@contextmanager
def ticking(engine: wasmtime.Engine) -> Iterator[None]:
    """The engine's epoch goes on meanwhile: a guest that runs gives the thread back."""
    over = threading.Event()

    def tick() -> None:
        while not over.wait(0.005):
            engine.increment_epoch()

    thread = threading.Thread(target=tick)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def to_its_end(call: Polled) -> None:
    """Polls it; what it waits for must become ready by itself."""
    try:
        for _ in range(POLLS_MAX):
            if call.poll():
                return
    finally:
        call.close()
    raise AssertionError("the guest does not end")


@dataclass
class World:
    """An engine, and the instances made of text."""

    engine: wasmtime.Engine = field(default_factory=engine)

    def program(self, text: str, functions: Functions, may_wait: Set[str] = frozenset()) -> Program:
        """The component compiled and loaded."""
        parts = compile_component(self.engine, bytes(wasmtime.wat2wasm(text)), may_wait)
        modules = [wasmtime.Module.deserialize(self.engine, part) for part in parts[1:]]
        return Program.load(self.engine, parts[0], modules, functions)

    @contextmanager
    def instance(self, program: Program, host: object = None) -> Iterator[Instance]:
        """Instantiated; ends with the context."""
        store = wasmtime.Store(self.engine)
        instance = program.instance(store, host)
        try:
            to_its_end(instance.instantiate(nullcontext))
            yield instance
        finally:
            instance.close()
            store.close()

    def run(self, text: str, functions: Functions, name: str, *arguments: object, host: object = None) -> Any:
        """What an export returns, in an instance of its own."""
        with self.instance(self.program(text, functions), host) as instance:
            return call(instance, name, *arguments)


def call(instance: Instance, name: str, *arguments: object) -> Any:
    """What an export returns."""
    made = instance.call("", name, *arguments)
    to_its_end(made)
    return made.result()


class Text:
    """Types as WebAssembly text, and as the plan has them. Those that need a name have one in the instance "types"."""

    def __init__(self) -> None:
        self.types: list[Type] = []
        self.lines: list[str] = []

    def add(self, kind: str, labels: tuple[str, ...] = (), items: tuple[int, ...] = ()) -> int:
        """One more type; `items` as in Type."""
        self.types.append(Type(kind, labels, items))
        number = len(self.types) - 1
        self.lines.append(
            f'(type $d{number} {self._written(self.types[-1])})(export "t{number}" (type $t{number} (eq $d{number})))'
        )
        return number

    def _written(self, type_: Type) -> str:
        def name(item: int) -> str:
            return f"$t{item}"

        match type_.kind:
            case "record":
                fields = (
                    f'(field "{label}" {name(item)})' for label, item in zip(type_.labels, type_.items, strict=True)
                )
                return f"(record {' '.join(fields)})"
            case "variant":
                cases = (
                    f'(case "{label}" {name(item) if item != NONE else ""})'
                    for label, item in zip(type_.labels, type_.items, strict=True)
                )
                return f"(variant {' '.join(cases)})"
            case "flags" | "enum":
                labels = " ".join(f'"{label}"' for label in type_.labels)
                return f"({type_.kind} {labels})"
            case "tuple" | "list" | "option":
                return f"({type_.kind} {' '.join(map(name, type_.items))})"
            case "result":
                ok, error = type_.items
                first = name(ok) if ok != NONE else ""
                second = f"(error {name(error)})" if error != NONE else ""
                return f"(result {first} {second})"
            case kind:
                return kind

    def echo(self, number: int, encoding: str = "utf8") -> str:
        """A component whose "run" passes a value of the type on to the host's "echo", and what that returns back."""
        signature = Layouts(tuple(self.types)).signature(FunctionType((number,), number), lowered=True)
        lifted = Layouts(tuple(self.types)).signature(FunctionType((number,), number), lowered=False)
        params = " ".join(CORE_TYPES[kind] for kind in lifted.params)
        gets = " ".join(f"(local.get {n})" for n in range(len(lifted.params)))
        area = f"(i32.const {RESULT_AT})" if signature.result_in_memory else ""
        lowered_result = " ".join(CORE_TYPES[kind] for kind in signature.results)
        lifted_result = " ".join(CORE_TYPES[kind] for kind in lifted.results)
        lowered = " ".join(CORE_TYPES[kind] for kind in signature.params)
        options = f"(memory $memory) (realloc $realloc) string-encoding={encoding}"
        return f"""(component
          (import "types" (instance $types {" ".join(self.lines)}
            (export "echo" (func (param "x" $t{number}) (result $t{number})))))
          (alias export $types "t{number}" (type $t))
          (alias export $types "echo" (func $echo))
          (core module $libc {REALLOC})
          (core instance $libc (instantiate $libc))
          (alias core export $libc "memory" (core memory $memory))
          (alias core export $libc "realloc" (core func $realloc))
          (core func $lowered (canon lower (func $echo) {options}))
          (core module $m
            (import "" "echo" (func $echo (param {lowered}) (result {lowered_result})))
            (func (export "run") (param {params}) (result {lifted_result}) (call $echo {gets} {area}) {area}))
          (core instance $i (instantiate $m (with "" (instance (export "echo" (func $lowered))))))
          (func $run (param "x" $t) (result $t) (canon lift (core func $i "run") {options}))
          (export "run" (func $run)))"""
