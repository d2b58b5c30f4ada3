"""Covers: what is counted in a component, held against components written for it, generated ones, and Wasmtime."""

import random
import time

import pytest
import wasmtime

from tests.fuzz.component_corpus import COMPONENTS, doubling
from tests.fuzz.component_generator import Generator
from tests.fuzz.component_oracle import Counter, everything, takes_component
from tests.fuzz.section_trees import leb
from tests.fuzz.wasm_inspection import run_components
from wasmpool_api.sizes import MAX_SIZE
from wasmpool_api.wasm import (
    BinaryKind,
    Component,
    Feature,
    Import,
    Interface,
    InterfaceExport,
    ModuleInvalid,
    Sort,
    inspect,
    inspect_module,
)
from wasmpool_api.wasm_workload import ComponentNeeds, ModuleNeeds


@pytest.fixture(scope="module")
def engine() -> wasmtime.Engine:
    """Takes every proposal that Wasmtime knows."""
    return wasmtime.Engine(everything())


@pytest.fixture(scope="module")
def counter() -> Counter:
    """Wasmtime's own counts."""
    return Counter()


def component(text: str) -> Component:
    """What is found in one."""
    found = inspect(bytes(wasmtime.wat2wasm(text))).component
    assert found is not None
    return found


def makes(needs: ComponentNeeds) -> tuple[int, int, int]:
    """As a sample says it."""
    return needs.core_instances, needs.memories, needs.tables


@pytest.mark.parametrize("name", COMPONENTS)
def test_what_a_sample_makes_and_imports(name: str) -> None:
    sample = COMPONENTS[name]
    inspection = inspect(sample.binary)
    assert inspection.kind is BinaryKind.COMPONENT
    assert inspection.needs.features == tuple(sorted({Feature.COMPONENT, *sample.features}))
    found = inspection.component
    assert found is not None
    assert makes(found.needs) == sample.makes
    assert tuple((str(it.interface), it.sort.value, it.functions) for it in found.imports) == sample.imports
    assert inspection.needs.imported_functions == sum(functions for _, _, functions in sample.imports)


@pytest.mark.parametrize("name", COMPONENTS)
def test_wasmtime_takes_what_the_sample_says(engine: wasmtime.Engine, name: str) -> None:
    assert takes_component(engine, COMPONENTS[name].binary) == COMPONENTS[name].runs


UNPOOLABLE = {"a 64-bit memory and a shared one"}


@pytest.mark.parametrize("name", [name for name in COMPONENTS if COMPONENTS[name].runs and name not in UNPOOLABLE])
def test_wasmtime_counts_the_same_in_a_sample(counter: Counter, name: str) -> None:
    sample = COMPONENTS[name]
    instances, memories, tables = sample.makes
    assert counter.makes(sample.binary) == (instances + sample.adapters, memories, tables)


@pytest.mark.parametrize("seed", range(60))
def test_wasmtime_counts_the_same_in_a_generated_component(counter: Counter, seed: int) -> None:
    binary = bytes(wasmtime.wat2wasm(Generator(random.Random(seed)).component()))  # noqa: S311 - repeatable
    found = inspect(binary).component
    assert found is not None
    assert makes(found.needs) == counter.makes(binary)


def test_each_core_module_has_its_counts_its_place_and_its_instances() -> None:
    text = COMPONENTS["modules wired to each other"].text
    binary = bytes(wasmtime.wat2wasm(text))
    found = component(text)
    libc, main = found.modules
    assert (libc.instances, main.instances) == (1, 1)
    assert (libc.needs.memory_pages, libc.needs.table_elements, libc.needs.globals) == (4, 5, 1)
    assert (main.needs.imported_functions, main.needs.imported_memories, main.needs.imported_globals) == (2, 1, 1)
    assert [it.name for it in main.imports] == ["memory", "table", "g", "realloc", "now"]
    for module in found.modules:
        cut = binary[module.offset : module.offset + module.size_bytes]
        assert inspect_module(cut) == module.needs
        assert tuple(inspect(cut).imports) == module.imports


def test_only_what_the_host_must_provide_is_imported() -> None:
    """The main module imports a memory, a table and a global; another one of the component has them."""
    needs = inspect(COMPONENTS["modules wired to each other"].binary).needs
    assert needs == ModuleNeeds(
        imported_functions=1,
        types=3,
        functions=1,
        tables=1,
        memories=1,
        globals=1,
        table_elements=5,
        memory_pages=4,
        features=("Component",),
    )


def test_sums_are_over_instances_and_counts_over_modules() -> None:
    found = component(COMPONENTS["a nested component three times"].text)
    (module,) = found.modules
    assert (module.instances, module.needs.memory_pages, module.needs.table_elements) == (6, 2, 3)
    assert (found.sums.memory_pages, found.sums.table_elements, found.sums.functions) == (12, 18, 6)


def test_modules_of_the_host_are_counted_and_nothing_is_said_of_them() -> None:
    found = component(COMPONENTS["a module from the host"].text)
    assert (found.needs.core_instances, found.from_host, found.sums) == (1, 1, ModuleNeeds())


def test_exports_are_named_with_their_versions() -> None:
    found = component(
        """(component (core module $m (func (export "handle"))) (core instance $i (instantiate $m))
          (func $f (canon lift (core func $i "handle")))
          (instance $h (export "handle" (func $f)))
          (export "wasi:http/incoming-handler@0.2.1" (instance $h)) (export "other" (func $f)))"""
    )
    assert found.exports == (
        InterfaceExport(Interface("wasi:http/incoming-handler", "0.2.1"), Sort.INSTANCE),
        InterfaceExport(Interface("other"), Sort.FUNCTION),
    )


@pytest.mark.parametrize(
    ("text", "interface"),
    [
        ("wasi:http/types@0.2.1", Interface("wasi:http/types", "0.2.1")),
        ("wasi:http/types@0.3.0-rc-2026-01-01+x", Interface("wasi:http/types", "0.3.0-rc-2026-01-01+x")),
        ("local:app/log", Interface("local:app/log")),
        ("run", Interface("run")),
        ("url=<https://example.com/a:b/c@1>", Interface("url=<https://example.com/a:b/c@1>")),
        ("unlocked-dep=<a:b/c@{>=1.0.0}>", Interface("unlocked-dep=<a:b/c@{>=1.0.0}>")),
    ],
)
def test_a_name_is_an_interface_and_a_version(text: str, interface: Interface) -> None:
    assert Interface.parse(text) == interface
    assert str(interface) == text


def test_a_name_of_its_own_is_kept_beside_the_interface() -> None:
    (found,) = component(COMPONENTS["a name of its own for an interface"].text).imports
    assert (str(found.interface), found.name) == ("a:b/store@1.2.3", "backup")


def test_a_core_module_has_no_component() -> None:
    found = inspect(bytes(wasmtime.wat2wasm('(module (import "a" "b" (func)))')))
    assert found.component is None
    assert [it for it in found.imports if isinstance(it, Import)]


def test_two_to_the_hundredth_instances_are_counted_at_once() -> None:
    """And said as the largest number that a status can hold."""
    binary = bytes(wasmtime.wat2wasm(doubling(100)))
    began = time.thread_time()
    found = inspect(binary).component
    took = time.thread_time() - began
    assert found is not None
    assert makes(found.needs) == (MAX_SIZE, MAX_SIZE, 0)
    assert found.modules[0].instances == MAX_SIZE
    assert took < 0.2, f"{took:.2f} s for {len(binary)} bytes"


def test_doubling_with_ever_other_arguments_ends_at_a_limit() -> None:
    """Each level gives a new instance on, so that no two are the same."""
    levels = ['(component $c0 (import "i" (instance $i)))']
    levels += [
        f"""(component $c{level} (import "i" (instance $i)) (alias outer 1 $c{level - 1} (component $inner))
          (core module $m) (instance $a (export "i" (instance $i)) (export "a" (core module $m)))
          (instance $b (export "i" (instance $i)) (export "b" (core module $m)))
          (instance (instantiate $inner (with "i" (instance $a))))
          (instance (instantiate $inner (with "i" (instance $b)))))"""
        for level in range(1, 30)
    ]
    text = f'(component {" ".join(levels)} (instance $i) (instance (instantiate $c29 (with "i" (instance $i)))))'
    binary = bytes(wasmtime.wat2wasm(text))
    began = time.thread_time()
    with pytest.raises(ModuleInvalid, match="it takes more than 200000 steps to find out what the component"):
        inspect(binary)
    assert time.thread_time() - began < 3


def test_a_component_that_is_given_to_itself_ends_at_a_limit() -> None:
    """No type checker takes it; inspection comes before that."""
    with pytest.raises(ModuleInvalid, match="instantiated more than 2000 deep"):
        component(
            """(component
              (component $c (import "c" (component $c)) (instance (instantiate $c (with "c" (component $c)))))
              (instance (instantiate $c (with "c" (component $c)))))"""
        )


def test_components_a_thousand_deep_are_read_without_a_thousand_calls() -> None:
    nested = b""
    for _ in range(998):
        body = b"\0asm\x0d\0\x01\0" + nested
        nested = b"\x04" + leb(len(body)) + body
    assert inspect(b"\0asm\x0d\0\x01\0" + nested).kind is BinaryKind.COMPONENT
    body = b"\0asm\x0d\0\x01\0" + nested
    deeper = b"\x04" + leb(len(body)) + body
    body = b"\0asm\x0d\0\x01\0" + deeper
    with pytest.raises(ModuleInvalid, match="1001 modules and components: at most 1000 are allowed"):
        inspect(b"\0asm\x0d\0\x01\0\x04" + leb(len(body)) + body)


def test_types_that_double_are_counted_at_once() -> None:
    """Each instance type has two instances of the one before: 2^100 functions in a kilobyte."""
    text = '(type $t0 (instance (export "f" (func))))'
    for level in range(1, 80):
        text += (
            f'(type $t{level} (instance (alias outer 1 $t{level - 1} (type $x)) (export "a" (instance (type $x)))'
            f' (export "b" (instance (type $x)))))'
        )
    found = inspect(bytes(wasmtime.wat2wasm(f'(component {text} (import "i" (instance (type $t79))))')))
    assert found.needs.imported_functions == MAX_SIZE


def test_ten_thousand_mutants_are_inspected_or_refused() -> None:
    """`python -m tests.fuzz.wasm_inspection --kind components` runs as many as wanted."""
    outcome = run_components(10_000, seed=1)
    assert outcome.counted > 1500, "most mutants must stay close to components"
    assert len(outcome.refused) > 50, "every check must be reached"


def test_the_time_does_not_depend_on_the_size_of_the_code() -> None:
    code = b"\x01" + leb(30_000_003) + b"\x00" + b"\x01" * 30_000_001 + b"\x0b"
    module = b"\0asm\x01\0\0\0\x01\x04\x01\x60\0\0\x03\x02\x01\0\x0a" + leb(len(code)) + code
    binary = b"\0asm\x0d\0\x01\0\x01" + leb(len(module)) + module + b"\x02\x04\x01\0\0\0"
    began = time.thread_time()
    found = inspect(binary).component
    took = time.thread_time() - began
    assert found is not None
    assert makes(found.needs) == (1, 0, 0)
    assert took < 0.05, f"{took * 1000:.1f} ms for {len(binary) >> 20} MiB"
