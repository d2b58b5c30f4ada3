"""What wasm-tools says of binaries: asked now, where it is installed, or as it was recorded, where it is not.

    cargo install --locked --root ~/.cache/wasmpool/tools wasm-tools
    python -m tests.unit.api.wasm_tools                                 # records anew what the tests ask

The record is a zip of modules that `wasm-tools smith` made, and of one JSON file with what it said of each binary.
"""

import hashlib
import json
import os
import random
import re
import shutil
import subprocess
import sys
import zipfile
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Final

from tests.fuzz.component_corpus import COMPONENTS
from tests.fuzz.wasm_corpus import SAMPLES, binaries

CACHE: Final = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "wasmpool"
WASM_TOOLS: Final = shutil.which("wasm-tools") or shutil.which("wasm-tools", path=CACHE / "tools" / "bin")
RECORD: Final = Path(__file__).with_name("wasm_tools.zip")
ANSWERS: Final = "answers.json"
GENERATED: Final = 60
SECTION: Final = re.compile(
    r"\s*(?P<name>[a-z ]+?)\s*\|\s*(?P<start>0x[0-9a-f]+) -\s*(0x[0-9a-f]+) \|.*\| (?P<count>\d+) count"
)


@dataclass
class Module:
    """What wasm-tools says of one core module. `offset`: in bytes."""

    offset: int
    counts: Counter[str] = field(default_factory=Counter[str])


def ask(*arguments: str, given: bytes) -> bytes:
    """What it prints. Raises CalledProcessError."""
    return subprocess.run([str(WASM_TOOLS), *arguments], input=given, capture_output=True, check=True).stdout


def core_modules(binary: bytes) -> list[Module]:
    """In the order of the file. Raises KeyError for a binary of which nothing was recorded, where it can't be asked."""
    found = [(it.offset, dict(it.counts)) for it in _asked(binary)] if WASM_TOOLS else _recorded()[_name(binary)]
    return [Module(offset, Counter(counts)) for offset, counts in found or ()]


def takes(binary: bytes) -> bool:
    """Whether it finds the binary valid, all features allowed. Raises KeyError as `core_modules` does."""
    if not WASM_TOOLS:
        return _recorded()[_name(binary)] is not None
    return _valid(binary)


def generated() -> Sequence[bytes]:
    """Modules that it made of random bytes, the same in every run."""
    with zipfile.ZipFile(RECORD) as archive:
        return [archive.read(name) for name in sorted(archive.namelist()) if name != ANSWERS]


def _asked(binary: bytes) -> list[Module]:
    found = [Module(0)] if binary[6] == 0 else list[Module]()
    for line in ask("objdump", "-", given=binary).decode().splitlines():
        section = SECTION.fullmatch(line)
        if section is None:
            continue
        if section["name"] == "module":
            found.append(Module(int(section["start"], 16)))
        elif found:
            # NB: behind a core module there may be sections of the component; their names are others.
            found[-1].counts[section["name"]] += int(section["count"])
    return found


def _valid(binary: bytes) -> bool:
    try:
        ask("validate", "--features", "all", given=binary)
    except subprocess.CalledProcessError:
        return False
    return True


@cache
def _recorded() -> dict[str, list[tuple[int, dict[str, int]]] | None]:
    with zipfile.ZipFile(RECORD) as archive:
        answers: dict[str, list[tuple[int, dict[str, int]]] | None] = json.loads(archive.read(ANSWERS))
    return answers


def _name(binary: bytes) -> str:
    return hashlib.sha256(binary).hexdigest()


def _answer(binary: bytes) -> list[tuple[int, dict[str, int]]] | None:
    return [(it.offset, dict(it.counts)) for it in _asked(binary)] if _valid(binary) else None


def _record(given: Iterable[bytes], made: Sequence[bytes]) -> None:
    answers = {_name(binary): _answer(binary) for binary in (*given, *made)}
    with zipfile.ZipFile(RECORD, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        files = {f"{at:02}.wasm": binary for at, binary in enumerate(made)}
        files[ANSWERS] = json.dumps(answers, sort_keys=True).encode()
        for name, data in files.items():
            archive.writestr(zipfile.ZipInfo(name), data, zipfile.ZIP_DEFLATED)


def main() -> int:
    """Records."""
    if WASM_TOOLS is None:
        sys.stderr.write("wasm-tools is not installed\n")
        return 1
    made = [ask("smith", given=random.Random(seed).randbytes(4000)) for seed in range(GENERATED)]  # noqa: S311
    _record(
        (*binaries().values(), *(it.binary for it in COMPONENTS.values()), *(it.binary for it in SAMPLES.values())),
        made,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
