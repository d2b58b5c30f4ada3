"""Builds the tests' guests from source with real toolchains."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent


def c_guest(source: Path, target: Path) -> bytes:
    """Compiles a C program for WASI preview 1 with the compiler of the ziglang package."""
    command = (
        "-m",
        "ziglang",
        "cc",
        "--target=wasm32-wasi",
        "-O1",
        "-Wl,--strip-debug,-z,stack-size=65536",
        "-o",
        str(target),
        str(source),
    )
    subprocess.run([sys.executable, *command], check=True)
    return target.read_bytes()


def go_guest(package: Path, target: Path) -> bytes | None:
    """Compiles a Go program for WASI preview 1; None where this machine has no Go."""
    go = shutil.which("go")
    if go is None:
        return None
    environment = os.environ | {"GOOS": "wasip1", "GOARCH": "wasm", "GOFLAGS": "-mod=mod", "GOTOOLCHAIN": "local"}
    command = (go, "build", "-trimpath", "-ldflags=-s -w", "-o", str(target), ".")
    subprocess.run(command, cwd=package, env=environment, check=True)
    return target.read_bytes()
