"""Makes a component of a C program: compiled to a core module, and put into the component that a WAT file describes."""

import subprocess
import sys
from pathlib import Path

import wasmtime

_CORE_MODULE_SECTION = 1


class ComponentBuildError(Exception):
    """The compiler refused the program; the message holds what it said."""


def build_component(source: Path, world: Path, target: Path, *, include: Path | None = None) -> bytes:
    """Writes the component to `target` and gives it. The program takes the place of the world's last module.

    `include`: where else headers are. The compiler is pinned (ziglang in requirements/dev.txt). Raises
    ComponentBuildError.
    """
    core = target.with_suffix(".core.wasm")
    command = [
        sys.executable,
        *("-m", "ziglang", "cc", "--target=wasm32-freestanding", "-Os", "-s", "-Wall", "-Wextra", "-Werror"),
        *("-nostdlib", "-mcpu=mvp", "-Wl,--no-entry,--import-memory,-z,stack-size=65536"),
        *((f"-I{include}",) if include is not None else ()),
        *(str(source), "-o", str(core)),
    ]
    run = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if run.returncode != 0:
        raise ComponentBuildError(f"{' '.join(command)} failed with exit code {run.returncode}:\n{run.stdout}")
    component = _with_module(bytes(wasmtime.wat2wasm(world.read_text())), core.read_bytes())
    core.unlink()
    target.write_bytes(component)
    return component


def _with_module(component: bytes, module: bytes) -> bytes:
    """With the module in place of the last one that is there."""
    sections: list[tuple[int, bytes]] = []
    at = 8
    while at < len(component):
        size, begin = _unsigned(component, at + 1)
        sections.append((component[at], component[begin : begin + size]))
        at = begin + size
    last = max(number for number, (kind, _) in enumerate(sections) if kind == _CORE_MODULE_SECTION)
    sections[last] = (_CORE_MODULE_SECTION, module)
    return component[:8] + b"".join(bytes([kind]) + _leb(len(content)) + content for kind, content in sections)


def _unsigned(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return value, at


def _leb(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes(out + bytes([value]))
