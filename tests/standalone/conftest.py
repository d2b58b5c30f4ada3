"""What tests of agents without a cluster begin with."""

import socket
from collections.abc import Iterator

import pytest

from demo.components import build_component
from tests.standalone.agent import Files, files_of_its_own
from tests.standalone.serving import WEB, WORLD


@pytest.fixture
def files() -> Iterator[Files]:
    """A directory of this test that nobody's user can read."""
    with files_of_its_own() as made:
        yield made


@pytest.fixture(scope="session")
def web(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The example's guest: says the path; /echo sends back what comes."""
    target = tmp_path_factory.mktemp("guests") / "web.wasm"
    return build_component(WEB / "web.c", WORLD, target)


@pytest.fixture
def ports() -> tuple[int, int]:
    """Two that are free, one after the other."""
    while True:
        with socket.create_server(("127.0.0.1", 0)) as first:
            port: int = first.getsockname()[1]
            try:
                with socket.create_server(("127.0.0.1", port + 1)):
                    return port, port + 1
            except OSError:
                continue
