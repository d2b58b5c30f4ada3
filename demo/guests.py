"""Builds the example guests from source, and the ConfigMap that carries them to a cluster.

`python -m demo.guests` writes examples/guests.yaml and, beside it for `wasmpool-agent check`, examples/build/*.wasm.
`python -m demo.guests --check` writes nothing and fails if the committed ConfigMap is not what the sources build.
The compiler is pinned (ziglang in requirements/dev.txt) and its output depends on nothing but the source.
"""

import argparse
import base64
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
EXAMPLES: Final = ROOT / "examples"
CONFIG_MAP: Final = EXAMPLES / "guests.yaml"
BUILD: Final = EXAMPLES / "build"
MOST_CONFIG_MAP_BYTES: Final = 1024 * 1024
_BASE64_COLUMNS: Final = 120


@dataclass(frozen=True)
class Guest:
    """One C program. `link`: further arguments for the compiler driver."""

    name: str
    link: tuple[str, ...] = ()

    @property
    def source(self) -> Path:
        """The C file."""
        return EXAMPLES / "guests" / f"{self.name}.c"

    @property
    def file_name(self) -> str:
        """Key in the ConfigMap, and file in examples/build."""
        return f"{self.name}.wasm"


GUESTS: Final = (
    Guest("hello"),
    Guest("mandelbrot"),
    Guest("ticker"),
    Guest("too-big", link=("-Wl,--initial-memory=33554432",)),
)
WEB: Final = EXAMPLES / "guests" / "web"
"""The guest that answers requests: a component."""
GO_GUEST: Final = EXAMPLES / "guests" / "wordcount"


class GuestBuildError(Exception):
    """A compiler refused a guest; the message holds what it said."""


def build_c_guest(guest: Guest, target: Path) -> None:
    """Compiles one guest for WASI preview 1. Raises GuestBuildError."""
    command = [
        sys.executable,
        "-m",
        "ziglang",
        "cc",
        "--target=wasm32-wasi",
        "-Os",
        "-s",
        "-Wall",
        "-Wextra",
        "-Werror",
        "-Wl,-z,stack-size=65536",
        *guest.link,
        str(guest.source),
        "-o",
        str(target),
    ]
    _compile(command, cwd=ROOT, env={})


def build_go_guest(target: Path) -> bool:
    """Compiles the Go guest; False where there is no Go on PATH. Raises GuestBuildError."""
    go = shutil.which("go")
    if go is None:
        return False
    command = [go, "build", "-trimpath", "-ldflags=-s -w", "-o", str(target), "."]
    _compile(command, cwd=GO_GUEST, env={"GOOS": "wasip1", "GOARCH": "wasm", "GOFLAGS": "", "GOWORK": "off"})
    return True


def _compile(command: Sequence[str], *, cwd: Path, env: Mapping[str, str]) -> None:
    run = subprocess.run(
        command, cwd=cwd, env=os.environ | env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    if run.returncode != 0:
        raise GuestBuildError(f"{' '.join(command)} in {cwd} failed with exit code {run.returncode}:\n{run.stdout}")


def build_c_guests(directory: Path) -> dict[str, bytes]:
    """All C guests by file name, written to `directory` and returned."""
    directory.mkdir(parents=True, exist_ok=True)
    modules: dict[str, bytes] = {}
    for guest in GUESTS:
        target = directory / guest.file_name
        build_c_guest(guest, target)
        modules[guest.file_name] = target.read_bytes()
    modules["web.wasm"] = _build_web(directory / "web.wasm")
    return modules


def _build_web(target: Path) -> bytes:
    # Imported here, for wasmtime is not there before .venv is.
    from demo.components import ComponentBuildError, build_component  # noqa: PLC0415

    try:
        return build_component(WEB / "web.c", WEB / "world.wat", target)
    except ComponentBuildError as error:
        raise GuestBuildError(str(error)) from error


def config_map(modules: Mapping[str, bytes]) -> str:
    """The manifest that carries `modules`. Raises GuestBuildError where they do not fit into one ConfigMap."""
    total = sum(len(module) for module in modules.values())
    if total > MOST_CONFIG_MAP_BYTES:
        raise GuestBuildError(f"the guests have {total} bytes, a ConfigMap holds {MOST_CONFIG_MAP_BYTES}")
    lines = [
        "# Made by `make examples` from guests/*.c; a test holds that it is what they build. Do not edit.",
        "apiVersion: v1",
        "kind: ConfigMap",
        "metadata:",
        "  name: guests",
        "  namespace: default",
        "binaryData:",
    ]
    for name, module in sorted(modules.items()):
        text = base64.b64encode(module).decode()
        lines.append(f"  # {len(module)} bytes")
        lines.append(f"  {name}: |")
        lines.extend(f"    {text[at : at + _BASE64_COLUMNS]}" for at in range(0, len(text), _BASE64_COLUMNS))
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry of `python -m demo.guests`."""
    parser = argparse.ArgumentParser(prog="python -m demo.guests", description="Build the example guests.")
    parser.add_argument(
        "--check", action="store_true", help="write nothing; fail if examples/guests.yaml is not current"
    )
    check: bool = parser.parse_args(arguments).check
    if check:
        with tempfile.TemporaryDirectory() as directory:
            wanted = config_map(build_c_guests(Path(directory)))
        if CONFIG_MAP.read_text() != wanted:
            sys.stderr.write(f"{CONFIG_MAP} is not what the sources build: run `make examples`\n")
            return 1
        return 0
    modules = build_c_guests(BUILD)
    CONFIG_MAP.write_text(config_map(modules))
    for name, module in sorted(modules.items()):
        sys.stdout.write(f"examples/build/{name}: {len(module)} bytes\n")
    if build_go_guest(BUILD / "wordcount.wasm"):
        size = (BUILD / "wordcount.wasm").stat().st_size
        sys.stdout.write(f"examples/build/wordcount.wasm: {size} bytes (Go; too large for a ConfigMap)\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
