"""Covers: that the counts are those of wasm-tools, on generated modules, on the samples and on real programs.

Where it is not installed, with what it said when it was: see wasm_tools.py.
"""

from pathlib import Path
from typing import Final

import pytest

from tests.fuzz.component_corpus import COMPONENTS
from tests.fuzz.wasm_corpus import SAMPLES, binaries
from tests.unit.api.wasm_tools import CACHE, WASM_TOOLS, core_modules, generated, takes
from wasmpool_api.wasm import inspect
from wasmpool_api.wasm_workload import ModuleNeeds

GUESTS: Final = sorted((CACHE / "guests").glob("*.wasm")) if WASM_TOOLS else []
"""Of `python -m tests.toolchains`."""
COUNTED: Final = {
    "types": "types",
    "functions": "functions",
    "tables": "tables",
    "memories": "memories",
    "globals": "globals",
}


def counts(needs: ModuleNeeds) -> dict[str, int]:
    """Those that wasm-tools prints."""
    return {attribute: getattr(needs, attribute) for attribute in COUNTED.values()}


def compare(binary: bytes) -> None:
    """Of each core module: the counts, the imports, and where it is."""
    found = inspect(binary)
    theirs = core_modules(binary)
    if found.component is None:
        ours = [(0, found.needs, found.imports)]
    else:
        ours = [(module.offset, module.needs, module.imports) for module in found.component.modules]
    assert [offset for offset, _, _ in ours] == [module.offset for module in theirs]
    for (_, needs, imports), module in zip(ours, theirs, strict=True):
        # It counts imports that are grouped by their module as one.
        assert len(imports) >= module.counts["imports"]
        assert bool(imports) == bool(module.counts["imports"])
        wanted = {attribute: module.counts[name] for name, attribute in COUNTED.items()}
        got = counts(needs)
        if "GC" in needs.features:  # It counts groups of types there, we count types.
            wanted.pop("types")
            got.pop("types")
        assert got == wanted


@pytest.mark.parametrize("name", binaries())
def test_the_counts_of_a_module_are_those_of_wasm_tools(name: str) -> None:
    compare(binaries()[name])


@pytest.mark.parametrize("name", COMPONENTS)
def test_the_counts_in_a_component_are_those_of_wasm_tools(name: str) -> None:
    compare(COMPONENTS[name].binary)


@pytest.mark.parametrize("name", [name for name in COMPONENTS if not COMPONENTS[name].runs])
def test_wasm_tools_takes_the_samples_that_wasmtime_does_not_take_yet(name: str) -> None:
    assert takes(COMPONENTS[name].binary)


@pytest.mark.parametrize("name", SAMPLES)
def test_wasm_tools_takes_the_samples_of_modules(name: str) -> None:
    assert takes(SAMPLES[name].binary)


@pytest.mark.parametrize("module", generated())
def test_the_counts_of_generated_modules_are_those_of_wasm_tools(module: bytes) -> None:
    compare(module)


@pytest.mark.skipif(not GUESTS, reason="wasm-tools, or the guests that python -m tests.toolchains makes, are not there")
@pytest.mark.parametrize("path", GUESTS, ids=lambda path: path.stem)
def test_the_counts_of_a_real_program_are_those_of_wasm_tools(path: Path) -> None:
    compare(path.read_bytes())
