"""Handlers of requests as toolchains make them, each for a patch version of WASI 0.2 of its own, on the same agent.

Covers C for three versions and Rust's own, whose crate chooses another: GET, and a body that comes back. Rust needs
cargo with rustup, once; without, its test is skipped, but not where CI is "true". JavaScript, Python and Go, the same,
where `python -m tests.bench.backings` has built them: that takes minutes, and so does compiling them.
"""

import os
import shutil
import socket
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager

import pytest

from demo.components import build_component
from tests.bench.http import PAGES
from tests.bench.web_guests import WEB, web_guest
from tests.standalone.agent import Files, running
from tests.standalone.serving import ask
from tests.toolchains.__main__ import GUESTS
from wasmpool_api.wasm import inspect

pytestmark = pytest.mark.timeout(300)

C_VERSIONS = ("0.2.0", "0.2.3", "0.2.10")


@pytest.fixture(scope="module")
def c(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], bytes]:
    """The example's guest, for a version."""
    directory = tmp_path_factory.mktemp("guests")

    def build(version: str) -> bytes:
        world = directory / f"{version}.wat"
        world.write_text((WEB / "world.wat").read_text().replace("@0.2.0", f"@{version}"))
        return build_component(WEB / "web.c", world, directory / f"{version}.wasm")

    return build


@contextmanager
def served(files: Files, guests: dict[str, bytes], pages: int) -> Generator[dict[str, int]]:
    """The ports on which they answer, by name."""
    limits = {"memoryPages": pages, "types": 1000, "functions": 100_000, "globals": 1000, "tableElements": 100_000}
    first = free_ports(len(guests))
    http = {"portRange": f"{first}-{first + len(guests) - 1}"}
    files.write_pool(count=2 * len(guests), workers=1, moduleLimits=limits, http=http)
    folder = files.directory / "components"
    folder.mkdir()
    for name, guest in guests.items():
        (folder / f"{name}.wasm").write_bytes(guest)
        module = {"configMap": {"name": folder.name, "key": f"{name}.wasm"}}
        files.manifest(name, module=module, run={"http": {}}, instances=2)
    with running(files) as agent:
        yield {
            name: int(agent.until_state(name, "Running", seconds=240)["message"].rpartition(":")[2]) for name in guests
        }


def versions(guest: bytes) -> set[str]:
    """Of wasi:http, of what it exports and imports."""
    component = inspect(guest).component
    assert component is not None
    imports = [each.interface for each in component.imports]
    exports = [each.interface for each in component.exports]
    return {each.version for each in imports + exports if each.name.startswith("wasi:http/")}


def free_ports(count: int) -> int:
    """The first of so many that are free, one after the other."""
    while True:
        with ExitStack() as stack:
            first: int = stack.enter_context(socket.create_server(("127.0.0.1", 0))).getsockname()[1]
            try:
                for port in range(first + 1, first + count):
                    stack.enter_context(socket.create_server(("127.0.0.1", port)))
            except (OSError, OverflowError):
                continue
            return first


def answers_and_echoes(port: int) -> None:
    """GET and POST, twice: each request has an instance of its own."""
    body = os.urandom(200_000)
    for _ in range(2):
        status, greeting = ask(port, "/")
        assert (status, greeting[:5]) == (200, b"hello")
        assert ask(port, "/echo", body) == (200, body)


def test_c_answers_for_any_patch_version_side_by_side(files: Files, c: Callable[[str], bytes]) -> None:
    guests = {f"c-{version.replace('.', '-')}": c(version) for version in C_VERSIONS}
    assert [versions(guest) for guest in guests.values()] == [{version} for version in C_VERSIONS]
    with served(files, guests, PAGES["c"]) as ports:
        for port in ports.values():
            answers_and_echoes(port)


def test_rust_answers_beside_a_c_program_of_another_patch_version(files: Files, c: Callable[[str], bytes]) -> None:
    missing = [it for it in ("cargo", "rustup") if shutil.which(it) is None]
    if missing:
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(f"{missing[0]} is not installed")
    guests = {"rust": web_guest("rust").read_bytes(), "c": c("0.2.3")}
    assert versions(guests["rust"]).isdisjoint(versions(guests["c"]))
    with served(files, guests, PAGES["rust"]) as ports:
        for port in ports.values():
            answers_and_echoes(port)


@pytest.mark.parametrize("name", ["js", "python", "go"])
def test_other_languages_answer(files: Files, name: str) -> None:
    guest = GUESTS / f"echo-{name}.wasm"
    if not guest.exists():
        pytest.skip(f"{guest} is not built")
    with served(files, {name: guest.read_bytes()}, PAGES[name]) as ports:
        answers_and_echoes(ports[name])
