"""Registries as fixtures: one without anything, one with TLS; and a directory for what is not whole yet."""

import datetime
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.certificates import Authority, Trust
from tests.oci.registry import Registry
from tests.standalone.agent import Files, files_of_its_own


@pytest.fixture(scope="session")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """Plain HTTP, everybody may do everything."""
    with Registry(tmp_path_factory.mktemp("registry")) as made:
        yield made


@pytest.fixture(scope="session")
def trust(tmp_path_factory: pytest.TempPathFactory) -> Trust:
    """An authority of the tests' own, and the certificate `registry` by it, for loopback and for registry.test."""
    authority = Authority(tmp_path_factory.mktemp("trust"), now=datetime.datetime.now(datetime.UTC))
    authority.serve("registry", ["127.0.0.1"])
    return authority.trust


@pytest.fixture(scope="session")
def secure(tmp_path_factory: pytest.TempPathFactory, trust: Trust) -> Iterator[Registry]:
    """With TLS."""
    with Registry(tmp_path_factory.mktemp("secure"), trust=trust) as made:
        yield made


@pytest.fixture
def files() -> Iterator[Files]:
    """For an agent without a cluster."""
    with files_of_its_own() as made:
        yield made


@pytest.fixture
def downloads(tmp_path: Path) -> Path:
    """Where parts are."""
    directory = tmp_path / "downloads"
    directory.mkdir()
    return directory
