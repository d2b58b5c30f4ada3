"""What a cluster with nodes takes from this machine, it gives back: after `down`, after kill -9, beside another one."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

import pytest

from tests.cluster import lifecycle, machine, namespaces, node, processes, running
from tests.cluster.console import ClusterError
from tests.cluster.paths import ROOT
from tests.cluster.running import Running

pytestmark = [pytest.mark.node, pytest.mark.usefixtures("can_have_nodes")]
PAGES = 8


@dataclass(frozen=True)
class Seen:
    """What of a machine a cluster could leave behind."""

    huge_pages: int
    mounts: frozenset[str]
    cgroups: frozenset[str]
    networks: frozenset[str]
    directories: frozenset[str]
    records: frozenset[str]


def look() -> Seen:
    mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    return Seen(
        machine.huge_pages(),
        frozenset(line.split()[4] for line in mounts),
        frozenset(str(path) for path in machine.CGROUPS.glob("**/wasmpool-*")),
        frozenset(_networks()),
        frozenset(str(path) for path in node.OWN if path.exists()),
        frozenset(changes.state_dir for changes in machine.all_recorded()),
    )


@pytest.fixture
def untouched() -> Iterator[Seen]:
    """The machine before the test; after the test it must be the same."""
    # What somebody's killed cluster left is given back by the next `up`, which would look like this test's doing.
    lifecycle.clear_dead()
    before = look()
    yield before
    assert look() == before


@pytest.fixture
def state_dir(untouched: Seen, tmp_path: Path) -> Iterator[Path]:
    """A state directory of the test's own; a cluster that is still up in it goes."""
    yield tmp_path
    assert lifecycle.down(tmp_path) == []
    assert {entry.name for entry in tmp_path.iterdir()} <= {"logs"}


def test_down_gives_everything_back(state_dir: Path, untouched: Seen) -> None:
    made = _up(state_dir)
    assert machine.huge_pages() == untouched.huge_pages + PAGES
    assert {found.name for found in processes.all_of(state_dir)} >= {"node-1/kubelet", "control-plane/etcd"}
    assert lifecycle.down(state_dir) == []
    assert processes.all_of(state_dir) == []
    assert lifecycle.find(state_dir) is None
    assert not made.kubeconfig.exists()
    assert look() == untouched


def test_down_of_nothing_is_no_error(state_dir: Path) -> None:
    assert lifecycle.down(state_dir) == []


def test_up_finds_a_cluster_that_is_up(state_dir: Path) -> None:
    first = _up(state_dir)
    assert _up(state_dir) == first
    with pytest.raises(ClusterError, match=r"1 node\(s\) and 8 huge pages is up .* 2 node\(s\) and 8 huge pages"):
        lifecycle.up(state_dir, nodes=2, huge_pages=PAGES, owned=True)


@pytest.mark.parametrize(
    "victims",
    [
        pytest.param("*", id="everything"),
        pytest.param("*/init", id="every init"),
        pytest.param("node-1/kubelet", id="the kubelet"),
        pytest.param("control-plane/*", id="the control plane"),
    ],
)
def test_up_works_after_kill_9(state_dir: Path, untouched: Seen, victims: str) -> None:
    first = _up(state_dir)
    processes.kill(found.pid for found in processes.all_of(state_dir) if fnmatch(found.name, victims))
    second = _up(state_dir)
    assert second.token != first.token, "a broken cluster is not taken for one that is up"
    assert second.kubectl("get", "nodes", "-o", "name").stdout.split() == ["node/node-1"]
    assert machine.huge_pages() == untouched.huge_pages + PAGES


def test_down_after_kill_9_of_everything_gives_everything_back(state_dir: Path, untouched: Seen) -> None:
    _up(state_dir)
    processes.kill(found.pid for found in processes.all_of(state_dir))
    assert lifecycle.down(state_dir) == []
    assert look() == untouched


def test_a_cluster_ends_with_an_owner_that_was_killed(state_dir: Path, untouched: Seen) -> None:
    program = (
        "import pathlib, signal, sys; from tests.cluster import lifecycle\n"
        f"lifecycle.up(pathlib.Path(sys.argv[1]), nodes=1, huge_pages={PAGES}, owned=True); signal.pause()"
    )
    owner = subprocess.Popen([sys.executable, "-c", program, str(state_dir)], cwd=ROOT)
    try:
        _until(lambda: running.load(state_dir) is not None)
    finally:
        os.kill(owner.pid, signal.SIGKILL)
        owner.wait()
    _until(lambda: not processes.all_of(state_dir))
    assert lifecycle.down(state_dir) == []
    assert look() == untouched


def test_a_start_that_is_killed_half_way_is_given_back(state_dir: Path, untouched: Seen) -> None:
    command = [sys.executable, "-m", "tests.cluster", "up", "--huge-pages", str(PAGES), "--state-dir", str(state_dir)]
    half_way = subprocess.Popen(command, cwd=ROOT, start_new_session=True, stderr=subprocess.DEVNULL)
    _until(lambda: namespaces.find(state_dir, "control-plane") is not None)
    os.kill(half_way.pid, signal.SIGKILL)
    half_way.wait()
    assert lifecycle.down(state_dir) == []
    assert look() == untouched


def test_ending_one_of_two_clusters_leaves_the_other_whole(
    state_dir: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    _up(elsewhere)
    try:
        kept = _up(state_dir)
        # NB: the first to come has mounted and made what both use, and it is the first to go
        assert lifecycle.down(elsewhere) == []
        assert lifecycle.find(state_dir) == kept
        assert kept.kubectl("get", "nodes", "-o", "name").stdout.split() == ["node/node-1"]
    finally:
        lifecycle.down(elsewhere)


def test_more_huge_pages_than_there_is_memory_are_refused_with_both_numbers(state_dir: Path) -> None:
    with pytest.raises(ClusterError, match=r"10000000 huge pages are 20000000 MiB, .* MiB of memory are available"):
        lifecycle.up(state_dir, nodes=1, huge_pages=10_000_000, owned=True)


def test_more_nodes_than_are_possible_are_refused(state_dir: Path) -> None:
    with pytest.raises(ClusterError, match="--nodes 3: from 0 to 2 are possible"):
        lifecycle.up(state_dir, nodes=3, huge_pages=PAGES, owned=True)


def test_a_state_directory_that_a_node_could_not_see_is_refused(untouched: Seen) -> None:
    with pytest.raises(ClusterError, match="--state-dir /run/x: a node has a /run of its own"):
        lifecycle.up(Path("/run/x"), nodes=1, huge_pages=PAGES, owned=True)


def _up(state_dir: Path) -> Running:
    return lifecycle.up(state_dir, nodes=1, huge_pages=PAGES, owned=True)


def _networks() -> Iterator[str]:
    for pid in processes.everyone():
        try:
            yield str(Path(f"/proc/{pid}/ns/net").readlink())
        except OSError:
            continue


def _until(holds: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"not so within {seconds:.0f} s"
        time.sleep(0.05)
