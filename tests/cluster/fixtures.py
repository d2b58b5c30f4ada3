"""The clusters as pytest fixtures. They belong to the session: the kernel ends them with it, also after kill -9."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster import lifecycle, standing_alone
from tests.cluster.paths import default_state_dir
from tests.cluster.running import Running

__all__ = ["api_server", "api_server_with_controllers", "cluster"]


@pytest.fixture(scope="session")
def api_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """etcd and an API server, nothing else: no controllers, no nodes, no root. The session's own."""
    yield from _standing_alone(tmp_path_factory.mktemp("api-server"), controllers=False)


@pytest.fixture(scope="session")
def api_server_with_controllers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """As `api_server`, with the controller manager and the scheduler: garbage collection, DaemonSets, quotas."""
    yield from _standing_alone(tmp_path_factory.mktemp("control-plane"), controllers=True)


@pytest.fixture(scope="session")
def cluster() -> Iterator[Running]:
    """A real node: the one that `python -m tests.cluster up` started, or the session's own.

    Where a machine can't have one the test is skipped with the reason; in CI it fails.
    """
    found = lifecycle.find(default_state_dir())
    borrowed = found is not None and found.nodes > 0
    if not borrowed:
        problem = lifecycle.why_no_node(huge_pages=lifecycle.DEFAULT_HUGE_PAGES)
        if problem and os.environ.get("CI") == "true":
            pytest.fail(f"in CI a real node is wanted: {problem}")
        if problem:
            pytest.skip(problem)
    made = found if found is not None and borrowed else lifecycle.up(default_state_dir(), nodes=1, owned=True)
    try:
        yield made
    finally:
        if not borrowed:
            left = lifecycle.down(default_state_dir())
            assert not left, f"left behind: {left}"


def _standing_alone(state_dir: Path, *, controllers: bool) -> Iterator[Running]:
    made = standing_alone.up(state_dir, controllers=controllers, owned=True)
    try:
        yield made
    finally:
        standing_alone.down(state_dir)
