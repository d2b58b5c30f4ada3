"""The clusters as pytest fixtures. They belong to the session: the kernel ends them with it, also after kill -9."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster import lifecycle, standing_alone
from tests.cluster.paths import default_state_dir
from tests.cluster.running import Running

__all__ = ["api_server", "api_server_with_controllers", "can_have_nodes", "cluster"]


@pytest.fixture(scope="session")
def api_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """etcd and an API server, nothing else: no controllers, no nodes, no root. The session's own."""
    yield from _standing_alone(tmp_path_factory.mktemp("api-server"), controllers=False)


@pytest.fixture(scope="session")
def api_server_with_controllers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """As `api_server`, with the controller manager and the scheduler: garbage collection, DaemonSets, quotas."""
    yield from _standing_alone(tmp_path_factory.mktemp("control-plane"), controllers=True)


@pytest.fixture(scope="session")
def cluster(request: pytest.FixtureRequest) -> Iterator[Running]:
    """A real node: the one that `python -m tests.cluster up` started, or the session's own."""
    state_dir = default_state_dir()
    found = lifecycle.find(state_dir)
    if found is not None and found.owner is not None:
        pytest.fail(
            f"the cluster in {state_dir} is that of another test session, pid {found.owner}: "
            "wait for its end, or give this one a place of its own with XDG_STATE_HOME"
        )
    if found is not None and found.nodes > 0:
        yield found
        return
    request.getfixturevalue("can_have_nodes")
    made = lifecycle.up(state_dir, nodes=1, owned=True)
    try:
        yield made
    finally:
        left = lifecycle.down(state_dir)
        assert not left, f"left behind: {left}"


@pytest.fixture(scope="session")
def can_have_nodes() -> None:
    """Skips what needs a node where this machine can't have one, with the reason; in CI such a machine is a failure."""
    problem = lifecycle.why_no_node(huge_pages=lifecycle.DEFAULT_HUGE_PAGES)
    if problem and os.environ.get("CI") == "true":
        pytest.fail(f"in CI a real node is wanted: {problem}")
    if problem:
        pytest.skip(problem)


def _standing_alone(state_dir: Path, *, controllers: bool) -> Iterator[Running]:
    made = standing_alone.up(state_dir, controllers=controllers, owned=True)
    try:
        yield made
    finally:
        standing_alone.down(state_dir)
