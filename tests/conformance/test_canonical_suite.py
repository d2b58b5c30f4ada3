"""The Component Model's own tests, through the host of the canonical ABI.

Of each script the components that this host takes are instantiated and called, and what its assertions say must be so;
components that it refuses (composed ones, and those with types of modules or components) are left out with what is
asserted of them. How many assertions hold is written down, so that none gets lost, and a script may not be forgotten.
The suite is a Rust crate that cargo fetches, once. Without cargo these tests are skipped, but not where CI is "true".
"""

import os
import struct
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import pytest
import wasmtime

from tests.conformance.canonical_suite import fetch, manifest, script
from tests.conformance.s_expressions import Form, read
from tests.conformance.testsuite import NoCargoError
from tests.unit.agent.canonical_harness import World, call, to_its_end
from wasmpool_agent.canonical import Instance, Program, Unsupported, compile_component
from wasmpool_agent.wasmtime_async import GuestTrap

ASSERTED: dict[str, tuple[int, int]] = {
    "linking/link-time-virtualization.wast": (0, 7),
    "linking/shared-everything-dynamic-linking.wast": (3, 9),
    "linking/tags.wast": (0, 6),
    "linking/unit.wast": (83, 97),
    "resources/borrows.wast": (0, 2),
    "resources/handle-table.wast": (4, 10),
    "resources/multiple-resources.wast": (0, 1),
    "values/alignment.wast": (0, 9),
    "values/concat.wast": (35, 9),
    "values/numerics.wast": (7, 9),
    "values/post-return.wast": (2, 34),
    "values/realloc.wast": (3, 3),
    "values/strings.wast": (9, 0),
    "values/transcode.wast": (0, 5),
    "values/variants.wast": (0, 8),
}
"""For each script that runs anything: assertions that hold, and those that are left out."""


@pytest.fixture(scope="module", autouse=True)
def _suite() -> None:
    try:
        fetch()
    except NoCargoError as error:
        if os.environ.get("CI") == "true":
            raise
        pytest.skip(str(error))


@dataclass
class Run:
    """One script. `current`: the instance that is meant where none is named; None where it was refused."""

    text: bytes
    world: World = field(default_factory=World)
    definitions: dict[str, str] = field(default_factory=dict[str, str])
    named: dict[str, Instance | None] = field(default_factory=dict[str, Instance | None])
    current: Instance | None = None
    made: list[tuple[Instance, wasmtime.Store]] = field(default_factory=list[tuple[Instance, wasmtime.Store]])
    held: int = 0
    left_out: int = 0

    def all(self) -> None:
        for form in read(self.text):
            match form.head:
                case "component":
                    self._component(form)
                case "assert_return":
                    self._assert(form)
                case "assert_trap":
                    self._assert_trap(form)
                case "invoke":
                    self._invoke(form)
                case _:
                    # What is malformed or invalid is for the validator to say, which here is Wasmtime's.
                    assert form.head in {"assert_invalid", "assert_malformed", "assert_unlinkable"}, form.head

    def close(self) -> None:
        for instance, store in self.made:
            instance.close()
            store.close()

    def _source(self, form: Form) -> str:
        return self.text[form.start : form.end].decode()

    def _component(self, form: Form) -> None:
        words = [item for item in form.items[1:] if isinstance(item, str)]
        if words[:1] == ["instance"]:
            source = self.definitions[words[2]]
            self.current = self.named[words[1]] = self._instance(source)
            return
        source = self._source(form)
        if words[:1] == ["definition"]:
            self.definitions[words[1] if len(words) > 1 else ""] = source.replace("definition", "", 1)
            return
        name = words[0] if words and words[0].startswith("$") else ""
        if name:
            self.definitions[name] = source
        self.current = self.named[name] = self._instance(source)

    def _instance(self, source: str) -> Instance | None:
        engine = self.world.engine
        try:
            parts = compile_component(engine, bytes(wasmtime.wat2wasm(source)), frozenset())
        except Unsupported:
            return None
        except wasmtime.WasmtimeError as error:
            if "not enabled" not in str(error):
                raise
            return None
        program = Program.load(engine, parts[0], [wasmtime.Module.deserialize(engine, it) for it in parts[1:]], {})
        store = wasmtime.Store(engine)
        instance = program.instance(store, None)
        self.made.append((instance, store))
        to_its_end(instance.instantiate(nullcontext))
        return instance

    def _invoke(self, form: Form) -> tuple[bool, Any]:
        """Whether it was called, and what it returned."""
        items = list(form.items[1:])
        instance = self.named[str(items.pop(0))] if isinstance(items[0], str) else self.current
        if instance is None:
            return False, None
        name = items.pop(0)
        assert isinstance(name, bytes)
        return True, call(instance, name.decode(), *(value(item) for item in items if isinstance(item, Form)))

    def _assert(self, form: Form) -> None:
        action, *expected = form.items[1:]
        assert isinstance(action, Form)
        called, found = self._invoke(action)
        if not called:
            self.left_out += 1
            return
        wanted = [value(item) for item in expected if isinstance(item, Form)]
        assert found == (wanted[0] if wanted else None), self._source(form)
        self.held += 1

    def _assert_trap(self, form: Form) -> None:
        action = form.items[1]
        assert isinstance(action, Form)
        try:
            if action.head == "component":
                self.left_out += self._instance(self._source(action)) is None
            else:
                self.left_out += not self._invoke(action)[0]
        except GuestTrap:
            self.held += 1


def value(form: Form) -> Any:
    """What a constant of a script is as a lifted value."""
    kind, _, what = form.head.partition(".")
    rest = form.items[1:]
    inner = [value(item) for item in rest if isinstance(item, Form) and item.head != "field"]
    match kind:
        case "bool":
            return rest[0] == "true"
        case "f32" | "f64":
            return float(str(rest[0])) if what == "const" else reinterpreted(kind, int(str(rest[0]), 0))
        case "char" | "str" | "enum":
            (text,) = rest
            assert isinstance(text, bytes)
            return text.decode()
        case "list":
            numbers = [item.head for item in rest if isinstance(item, Form)]
            return bytes(inner) if set(numbers) <= {"u8.const"} else inner
        case "tuple":
            return tuple(inner)
        case "record":
            fields = [item for item in rest if isinstance(item, Form)]
            return {_text(item.items[1]): value(Form(item.start, item.end, item.items[2:])) for item in fields}
        case "flags":
            return frozenset(_text(item) for item in rest)
        case "variant":
            return _text(rest[0]), (inner[0] if inner else None)
        case "option":
            return inner[0] if what == "some" else None
        case "result":
            return what == "ok", (inner[0] if inner else None)
        case _:
            return int(str(rest[0]).replace("_", ""), 0)


def reinterpreted(kind: str, bits: int) -> float:
    found: float = struct.unpack("<f" if kind == "f32" else "<d", bits.to_bytes(4 if kind == "f32" else 8, "little"))[0]
    return found


def _text(item: Form | str | bytes) -> str:
    assert isinstance(item, bytes)
    return item.decode()


@pytest.fixture
def run(request: pytest.FixtureRequest) -> Iterator[Run]:
    made = Run(script(request.param))
    yield made
    made.close()


@pytest.mark.parametrize("run", sorted(manifest()), indirect=True)
def test_what_a_script_asserts_of_components_that_are_hosted_is_so(run: Run, request: pytest.FixtureRequest) -> None:
    run.all()
    path = request.node.callspec.params["run"]
    assert (run.held, run.left_out) == ASSERTED.get(path, (0, 0))
