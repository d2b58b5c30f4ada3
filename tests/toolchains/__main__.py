"""Builds the hello world of each toolchain that is there, and prints what each needs, as docs/limits.md has it.

    nice python -m tests.toolchains

Guests and their tools go to ~/.cache/wasmpool (XDG_CACHE_HOME is heeded); what is there already is not built again.
C comes out of examples/build. The others need cargo with rustup, go, npm or uv, and are left out, with a word, where
that is not there. Tests take the guests from there (tests/unit/api/test_wasm_tools.py).
"""

import math
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from wasmpool_agent.check import default_pool, rows
from wasmpool_api.admission import judge_for
from wasmpool_api.wasm import inspect

CACHE: Final = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "wasmpool"
GUESTS: Final = CACHE / "guests"
TOOLS: Final = CACHE / "toolchains"
EXAMPLES: Final = Path(__file__).resolve().parents[2] / "examples" / "build"
COMPONENTIZE_PY: Final = "componentize-py==0.25.1"
COMPONENTIZE_JS: Final = "@bytecodealliance/componentize-js@0.23.0"
JCO: Final = "@bytecodealliance/jco@1.35.0"
"""For its WIT files of WASI 0.2.12."""

RUST: Final = 'fn main() { println!("hello"); }\n'
GO: Final = 'package main\n\nfunc main() { println("hello") }\n'
PYTHON_COMMAND: Final = """from wit_world import exports

class Run(exports.Run):
    def run(self) -> None:
        print("hello")
"""
PYTHON_HTTP: Final = """from componentize_py_types import Ok
from wit_world import exports
from wit_world.imports.types import Fields, OutgoingBody, OutgoingResponse, ResponseOutparam

class IncomingHandler(exports.IncomingHandler):
    def handle(self, request, response_out) -> None:
        response = OutgoingResponse(Fields.from_list([]))
        body = response.body()
        ResponseOutparam.set(response_out, Ok(response))
        with body.write() as out:
            out.blocking_write_and_flush(b"hello")
        OutgoingBody.finish(body, None)
"""
JAVASCRIPT: Final = """import { componentize } from '@bytecodealliance/componentize-js';
import { writeFileSync } from 'node:fs';
const source = 'addEventListener("fetch", event => event.respondWith(new Response("hello")));';
const { component } = await componentize(source, { witPath: process.argv[2], worldName: 'guest' });
writeFileSync(process.argv[3], component);
"""


def run(*command: str | Path, where: Path, **environment: str) -> None:
    """Raises CalledProcessError."""
    subprocess.run(list(map(str, command)), cwd=where, check=True, stdout=sys.stderr, env=os.environ | environment)


def fresh(name: str) -> Path:
    """An empty directory of that name among the tools."""
    path = TOOLS / name
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(parents=True)
    return path


def c(guest: Path) -> None:
    """An example."""
    shutil.copyfile(EXAMPLES / "hello.wasm", guest)


def rust(target: str) -> Callable[[Path], None]:
    """For this target of rustup."""

    def build(guest: Path) -> None:
        where = fresh(target)
        (where / "src").mkdir()
        (where / "src" / "main.rs").write_text(RUST)
        (where / "Cargo.toml").write_text('[package]\nname = "hello"\nversion = "0.1.0"\nedition = "2024"\n')
        run("rustup", "target", "add", target, where=where)
        run("cargo", "build", "--release", "--target", target, where=where, CARGO_BUILD_JOBS="1")
        shutil.copyfile(where / "target" / target / "release" / "hello.wasm", guest)

    return build


def go(guest: Path) -> None:
    """Upstream Go, for WASI preview 1."""
    where = fresh("go")
    (where / "main.go").write_text(GO)
    (where / "go.mod").write_text("module hello\n\ngo 1.21\n")
    run("go", "build", "-o", guest, ".", where=where, GOOS="wasip1", GOARCH="wasm")


def wit(world: str, http: str = "0.2.12") -> Path:
    """A directory of WIT files for a world that includes this one. `http`: the version that wasi:http is given."""
    node = TOOLS / "js"
    if not node.exists():
        node.mkdir(parents=True)
        (node / "package.json").write_text('{"private": true, "type": "module"}\n')
        run("npm", "install", "--silent", "--no-audit", COMPONENTIZE_JS, JCO, where=node)
    where = fresh(f"wit-{world.split('/')[1]}-{http}")
    shutil.copytree(node / "node_modules/@bytecodealliance/jco/lib/wit/builtin/0.2.12", where / "deps")
    for path in (where / "deps" / "wasi-http").glob("*.wit"):
        text = path.read_text().replace("package wasi:http@0.2.12", f"package wasi:http@{http}")
        path.write_text(text.replace("include wasi:http/imports@0.2.12", f"include wasi:http/imports@{http}"))
    version = http if world.startswith("wasi:http") else "0.2.12"
    (where / "world.wit").write_text(f"package local:guest;\nworld guest {{ include {world}@{version}; }}\n")
    return where


def python(world: str, source: str) -> Callable[[Path], None]:
    """componentize-py."""

    def build(guest: Path) -> None:
        types = wit(world)
        venv = TOOLS / "python"
        if not venv.exists():
            run("uv", "venv", "-q", venv, where=TOOLS)
            run("uv", "pip", "install", "-q", "--python", venv / "bin" / "python", COMPONENTIZE_PY, where=TOOLS)
        where = fresh("py")
        (where / "app.py").write_text(source)
        run(
            venv / "bin" / "componentize-py",
            "-d",
            types,
            "-w",
            "guest",
            "componentize",
            "app",
            "-o",
            guest,
            where=where,
        )

    return build


def javascript(guest: Path) -> None:
    """componentize-js, whose engine has wasi:http 0.2.10 and no other."""
    types = wit("wasi:http/proxy", http="0.2.10")
    node = TOOLS / "js"
    (node / "build.mjs").write_text(JAVASCRIPT)
    run("node", "build.mjs", types, guest, where=node)


GUESTS_BY_NAME: Final[dict[str, tuple[str, Callable[[Path], None]]]] = {
    "C, zig cc (preview 1)": ("c", c),
    "Rust, wasm32-wasip1": ("rust-p1", rust("wasm32-wasip1")),
    "Go, GOOS=wasip1": ("go", go),
    "Rust, wasm32-wasip2 (command)": ("rust-p2", rust("wasm32-wasip2")),
    "JavaScript, componentize-js 0.23 (HTTP)": ("js-http", javascript),
    "Python, componentize-py 0.25 (command)": ("python-command", python("wasi:cli/command", PYTHON_COMMAND)),
    "Python, componentize-py 0.25 (HTTP)": ("python-http", python("wasi:http/proxy", PYTHON_HTTP)),
}


def row(name: str, guest: bytes) -> str:
    """A line of Markdown; in bold what the defaults refuse. The time is the best of ten."""
    inspection, seconds = inspect(guest), math.inf
    for _ in range(10):
        began = time.perf_counter()
        inspect(guest)
        seconds = min(seconds, time.perf_counter() - began)
    verdict = judge_for(inspection.needs, default_pool().spec, None, "default", inspection.component)
    figures = [
        f"**{it.needed}**" if it.margin < 0 else str(it.needed)
        for it in rows(inspection, default_pool())
        if it.limit not in {"importedTables", "importedMemories", "importedGlobals"}
    ]
    figures += [""] * (11 - len(figures))
    within = "yes" if verdict.within_limits else "no"
    return f"| {name} | {' | '.join(figures)} | {within} | {len(guest) >> 10} | {seconds * 1000:.1f} |"


def main() -> int:
    """Gives 1 where one could not be built."""
    GUESTS.mkdir(parents=True, exist_ok=True)
    failed = 0
    for name, (file, build) in GUESTS_BY_NAME.items():
        guest = GUESTS / f"{file}.wasm"
        try:
            if not guest.exists():
                build(guest)
        except (OSError, subprocess.CalledProcessError) as error:
            failed = 1
            sys.stderr.write(f"{name}: {error}\n")
            continue
        print(row(name, guest.read_bytes()))
    return failed


if __name__ == "__main__":
    sys.exit(main())
