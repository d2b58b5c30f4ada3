"""Covers: that the counts are those of wasm-tools, on generated modules, on the samples and on real programs.

wasm-tools is Rust's; where it is not there, these are skipped. It is taken from PATH, or from where this puts it:

    cargo install --locked --root ~/.cache/wasmpool/tools wasm-tools
"""

import os
import random
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import pytest

from tests.fuzz.component_corpus import COMPONENTS
from tests.fuzz.wasm_corpus import SAMPLES, binaries
from wasmpool_api.wasm import inspect
from wasmpool_api.wasm_workload import ModuleNeeds

CACHE: Final = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "wasmpool"
WASM_TOOLS: Final = shutil.which("wasm-tools") or shutil.which("wasm-tools", path=CACHE / "tools" / "bin")
pytestmark = pytest.mark.skipif(WASM_TOOLS is None, reason="wasm-tools is not installed: cargo install wasm-tools")

GUESTS: Final = sorted((CACHE / "guests").glob("*.wasm"))
"""Of `python -m tests.toolchains`."""
SECTION: Final = re.compile(
    r"\s*(?P<name>[a-z ]+?)\s*\|\s*(?P<start>0x[0-9a-f]+) -\s*(0x[0-9a-f]+) \|.*\| (?P<count>\d+) count"
)
COUNTED: Final = {
    "types": "types",
    "functions": "functions",
    "tables": "tables",
    "memories": "memories",
    "globals": "globals",
}


@dataclass
class Module:
    """What wasm-tools says of one core module. `offset`: in bytes."""

    offset: int
    counts: Counter[str] = field(default_factory=Counter[str])


def wasm_tools(*arguments: str, given: bytes) -> bytes:
    """What it prints. Raises CalledProcessError."""
    return subprocess.run([str(WASM_TOOLS), *arguments], input=given, capture_output=True, check=True).stdout


def core_modules(binary: bytes) -> list[Module]:
    """In the order of the file."""
    found = [Module(0)] if binary[6] == 0 else list[Module]()
    for line in wasm_tools("objdump", "-", given=binary).decode().splitlines():
        section = SECTION.fullmatch(line)
        if section is None:
            continue
        if section["name"] == "module":
            found.append(Module(int(section["start"], 16)))
        elif found:
            # NB: behind a core module there may be sections of the component; their names are others.
            found[-1].counts[section["name"]] += int(section["count"])
    return found


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
    wasm_tools("validate", "--features", "all", given=COMPONENTS[name].binary)


@pytest.mark.parametrize("name", SAMPLES)
def test_wasm_tools_takes_the_samples_of_modules(name: str) -> None:
    wasm_tools("validate", "--features", "all", given=SAMPLES[name].binary)


def generated() -> Iterator[bytes]:
    """Modules that wasm-tools makes from random bytes."""
    for seed in range(60):
        yield wasm_tools("smith", given=random.Random(seed).randbytes(4000))  # noqa: S311 - repeatable


def test_the_counts_of_generated_modules_are_those_of_wasm_tools() -> None:
    for module in generated():
        compare(module)


@pytest.mark.skipif(not GUESTS, reason="no real guests are there: python -m tests.toolchains makes them")
@pytest.mark.parametrize("path", GUESTS, ids=lambda path: path.stem)
def test_the_counts_of_a_real_program_are_those_of_wasm_tools(path: Path) -> None:
    compare(path.read_bytes())
