"""The guests of the HTTP measurements: each answers GET with a few bytes, and POST with what it was sent.

C and Go come with the checkout. Rust, JavaScript, Python and Go are built with their own tools, as tests.toolchains
does, into ~/.cache/wasmpool/guests; what has been built is not built again. Go needs wasm-tools, too:

    cargo install --locked --root ~/.cache/wasmpool/tools wasm-tools
"""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Final

from demo.components import build_component
from tests.toolchains.__main__ import CACHE, GUESTS, TOOLS, fresh, python, run, wit

ROOT: Final = Path(__file__).resolve().parents[2]
WEB: Final = ROOT / "examples" / "guests" / "web"
GO: Final = ROOT / "tests" / "guests" / "echo"

RUST: Final = """use wasi::http::types::*;

struct Echo;

impl wasi::exports::http::incoming_handler::Guest for Echo {
    fn handle(request: IncomingRequest, out: ResponseOutparam) {
        let response = OutgoingResponse::new(Fields::new());
        let body = response.body().unwrap();
        ResponseOutparam::set(out, Ok(response));
        let stream = body.write().unwrap();
        if matches!(request.method(), Method::Post) {
            let incoming = request.consume().unwrap();
            let input = incoming.stream().unwrap();
            while let Ok(chunk) = input.blocking_read(65536) {
                for piece in chunk.chunks(4096) {
                    stream.blocking_write_and_flush(piece).unwrap();
                }
            }
        } else {
            stream.blocking_write_and_flush(b"hello\\n").unwrap();
        }
        drop(stream);
        OutgoingBody::finish(body, None).unwrap();
    }
}

wasi::http::proxy::export!(Echo);
"""
CARGO: Final = """[package]
name = "echo"
version = "0.1.0"
edition = "2021"

[lib]
crate-type = ["cdylib"]

[dependencies]
wasi = "=0.14.7"

[profile.release]
opt-level = "s"
lto = true
strip = true
panic = "abort"
"""
PYTHON: Final = """from componentize_py_types import Err, Ok
from wit_world import exports
from wit_world.imports.types import Fields, Method_Post, OutgoingBody, OutgoingResponse, ResponseOutparam

class IncomingHandler(exports.IncomingHandler):
    def handle(self, request, response_out) -> None:
        response = OutgoingResponse(Fields.from_list([]))
        body = response.body()
        ResponseOutparam.set(response_out, Ok(response))
        with body.write() as out:
            if isinstance(request.method(), Method_Post):
                with request.consume() as incoming, incoming.stream() as stream:
                    while True:
                        try:
                            chunk = stream.blocking_read(65536)
                        except Err:
                            break
                        for at in range(0, len(chunk), 4096):
                            out.blocking_write_and_flush(chunk[at : at + 4096])
            else:
                out.blocking_write_and_flush(b"hello\\n")
        OutgoingBody.finish(body, None)
"""
JAVASCRIPT: Final = """import { componentize } from '@bytecodealliance/componentize-js';
import { writeFileSync } from 'node:fs';
const source = `addEventListener("fetch", event => event.respondWith((async () =>
  event.request.method === "POST" ? new Response(await event.request.arrayBuffer()) : new Response("hello"))()));`;
const { component } = await componentize(source, { witPath: process.argv[2], worldName: 'guest' });
writeFileSync(process.argv[3], component);
"""


def _c(guest: Path) -> None:
    build_component(WEB / "web.c", WEB / "world.wat", guest)


def _c_with_image(size: int) -> Callable[[Path], None]:
    """The same with so many bytes of initial contents that it neither reads nor writes, but for the first few KiB."""

    def build(guest: Path) -> None:
        pages = 4 + -(-size // 65536)
        memory = '(memory (export "memory") 4 160)'
        text = (WEB / "world.wat").read_text()
        filled = f'(memory (export "memory") {pages} 512) (data (i32.const 0x30000) "{"x" * size}")'
        world = guest.with_suffix(".wat")
        world.write_text(text.replace(memory, filled))
        build_component(WEB / "web.c", world, guest)
        world.unlink()

    return build


def _rust(guest: Path) -> None:
    where = fresh("rust-echo")
    (where / "src").mkdir()
    (where / "src" / "lib.rs").write_text(RUST)
    (where / "Cargo.toml").write_text(CARGO)
    run("rustup", "target", "add", "wasm32-wasip2", where=where)
    run("cargo", "build", "--release", "--target", "wasm32-wasip2", where=where)
    shutil.copyfile(where / "target" / "wasm32-wasip2" / "release" / "echo.wasm", guest)


def _go(guest: Path) -> None:
    wasm_tools = shutil.which("wasm-tools") or shutil.which("wasm-tools", path=CACHE / "tools" / "bin")
    if wasm_tools is None:
        raise FileNotFoundError("wasm-tools, which makes a component of Go's module, is not installed")
    types = wit("wasi:http/proxy")
    adapter = TOOLS / "js/node_modules/@bytecodealliance/jco/lib/wasi_snapshot_preview1.reactor.wasm"
    core = fresh("go-echo") / "core.wasm"
    build = ("-buildmode=c-shared", "-trimpath", "-ldflags=-s -w")
    run("go", "build", *build, "-o", core, ".", where=GO, GOOS="wasip1", GOARCH="wasm")
    run(wasm_tools, "component", "embed", types, "--world", "guest", core, "-o", core, where=core.parent)
    # NB: the adapter is asked for memory before Go's runtime has begun: it must not call Go's realloc then.
    adapted = ("--adapt", f"wasi_snapshot_preview1={adapter}", "--realloc-via-memory-grow")
    run(wasm_tools, "component", "new", core, *adapted, "-o", guest, where=core.parent)


def _javascript(guest: Path) -> None:
    types = wit("wasi:http/proxy", http="0.2.10")
    node = TOOLS / "js"
    (node / "build-echo.mjs").write_text(JAVASCRIPT)
    run("node", "build-echo.mjs", types, guest, where=node)


BUILDERS: Final[dict[str, Callable[[Path], None]]] = {
    "c": _c,
    "c-256k": _c_with_image(256 * 1024),
    "c-1m": _c_with_image(1024**2),
    "c-4m": _c_with_image(4 * 1024**2),
    "rust": _rust,
    "go": _go,
    "js": _javascript,
    "python": python("wasi:http/proxy", PYTHON),
}


def web_guest(name: str) -> Path:
    """The component, built where it is not there yet. Raises CalledProcessError, OSError."""
    GUESTS.mkdir(parents=True, exist_ok=True)
    guest = GUESTS / f"echo-{name}.wasm"
    if not guest.exists():
        half = guest.with_suffix(".half")
        BUILDERS[name](half)
        half.rename(guest)
    return guest
