"""The clusters as pytest fixtures. They belong to the session: the kernel ends them with it, also after kill -9."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster import standing_alone
from tests.cluster.running import Running

__all__ = ["api_server", "api_server_with_controllers"]


@pytest.fixture(scope="session")
def api_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """etcd and an API server, nothing else: no controllers, no nodes, no root. The session's own."""
    yield from _standing_alone(tmp_path_factory.mktemp("api-server"), controllers=False)


@pytest.fixture(scope="session")
def api_server_with_controllers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """As `api_server`, with the controller manager and the scheduler: garbage collection, DaemonSets, quotas."""
    yield from _standing_alone(tmp_path_factory.mktemp("control-plane"), controllers=True)


def _standing_alone(state_dir: Path, *, controllers: bool) -> Iterator[Running]:
    made = standing_alone.up(state_dir, controllers=controllers, owned=True)
    try:
        yield made
    finally:
        standing_alone.down(state_dir)
