"""`up`, `down` and `status`: one way in for the command line, the demo and the fixtures."""

import os
from pathlib import Path
from typing import Final

from tests.cluster import binaries, machine, namespaces, processes, running, standing_alone, with_nodes
from tests.cluster.binaries import on_path
from tests.cluster.console import ClusterError, say, step
from tests.cluster.node import check_state_dir
from tests.cluster.running import Running
from tests.cluster.with_nodes import Layout

DEFAULT_HUGE_PAGES: Final = 512
"""1 GiB of this machine, for all nodes together."""
MOST_NODES: Final = 2
_SYSTEM_TOOLS: Final = ("unshare", "nsenter", "setpriv", "setsid", "mount", "ip", "nft", "conntrack")


def find(state_dir: Path) -> Running | None:
    """The cluster in this state directory, if all its parts run."""
    found = running.load(state_dir)
    return found if found is not None and not broken(found) else None


def broken(found: Running) -> list[str]:
    """The parts of it that do not run."""
    if found.nodes == 0:
        return [] if standing_alone.is_up(found) else ["kube-apiserver"]
    return with_nodes.missing(layout_of(found))


def layout_of(found: Running) -> Layout:
    """Of a cluster with nodes that is up. What is started with it ends with the owner of the rest, if this is it."""
    programs = binaries.ready(binaries.names_for(found.nodes))
    return Layout(programs, found.state_dir, found.nodes, found.huge_pages, found.owner == os.getpid())


def up(
    state_dir: Path,
    *,
    nodes: int,
    huge_pages: int = DEFAULT_HUGE_PAGES,
    controllers: bool = False,
    owned: bool = False,
) -> Running:
    """Bring it up, or find it up already. What a killed one left is cleared first. Raises ClusterError.

    `huge_pages`: of 2 MiB, of this machine, for all nodes together. `controllers`: with no nodes, run the controller
    manager and the scheduler nevertheless. `owned`: it ends with this process.
    """
    if not 0 <= nodes <= MOST_NODES:
        raise ClusterError(f"--nodes {nodes}: from 0 to {MOST_NODES} are possible")
    found = find(state_dir)
    if found is not None:
        if found.nodes != nodes or (nodes and found.huge_pages != huge_pages):
            raise ClusterError(
                f"a cluster with {found.nodes} node(s) and {found.huge_pages} huge pages is up in {state_dir}, "
                f"{nodes} node(s) and {huge_pages} huge pages are asked for; `python -m tests.cluster down` ends it"
            )
        return found
    if nodes == 0:
        return standing_alone.up(state_dir, controllers=controllers, owned=owned)
    problem = why_no_node(huge_pages=huge_pages, nodes=nodes)
    if problem:
        raise ClusterError(problem)
    check_state_dir(state_dir)
    programs = binaries.ready(binaries.names_for(nodes))
    with machine.alone():
        _clear(state_dir)
        layout = Layout(programs, state_dir, nodes, huge_pages, owned)
        try:
            return with_nodes.up(layout)
        except BaseException:
            changes = machine.recorded(state_dir)
            if changes:
                say("starting failed; giving back what was taken")
                for line in with_nodes.down(changes):
                    say(f"  left behind: {line}")
            raise


def down(state_dir: Path) -> list[str]:
    """End it, whatever state it is in; what is left behind, in words: nothing, if all is well. Idempotent."""
    changes = machine.recorded(state_dir)
    if changes is None:
        standing_alone.down(state_dir)
        return []
    if os.geteuid() != 0:
        raise ClusterError(f"the cluster in {state_dir} has nodes; only root can end it")
    with machine.alone(), step("cluster is down"):
        return with_nodes.down(changes)


def clear_dead() -> None:
    """Give back what clusters left of which nothing runs any more, whoever's they were. Raises ClusterError."""
    with machine.alone():
        _clear_dead()


def why_no_node(*, huge_pages: int, nodes: int = 1) -> str | None:
    """What this machine lacks for a cluster with nodes, in one sentence; None if nothing."""
    if os.geteuid() != 0:
        return "a cluster with nodes needs root; `--nodes 0` does not"
    absent = [tool for tool in _SYSTEM_TOOLS if on_path(tool) is None]
    if absent:
        return f"{', '.join(absent)}: not on this machine; scripts/install-system-packages.sh installs them"
    if huge_pages < nodes:
        return f"--huge-pages {huge_pages}: every node needs at least one, and there are {nodes}"
    wanted, available = huge_pages * machine.HUGE_PAGE_BYTES // 1024**2, machine.available_mebibytes()
    if wanted + 1024 * nodes > available:
        return (
            f"{huge_pages} huge pages are {wanted} MiB, the cluster itself wants about {1024 * nodes} MiB, and "
            f"{available} MiB of memory are available; ask for fewer with --huge-pages"
        )
    return None


def namespace(found: Running, name: str) -> namespaces.Namespace:
    """Of `control-plane` or a node. Raises ClusterError."""
    held = namespaces.find(found.state_dir, name)
    if held is None:
        there = ", ".join(["control-plane", *found.node_names])
        raise ClusterError(f"{name}: no such part of the cluster is up; it has {there if found.nodes else 'no nodes'}")
    return held


def _clear(state_dir: Path) -> None:
    """Give back what this cluster left, and others of which nothing runs any more. Raises ClusterError."""
    own = machine.recorded(state_dir)
    if own:
        _give_back(own)
    _clear_dead()
    standing_alone.down(state_dir)


def _clear_dead() -> None:
    for changes in machine.all_recorded():
        if not processes.all_of(Path(changes.state_dir)):
            _give_back(changes)


def _give_back(changes: machine.Changes) -> None:
    left = with_nodes.down(changes)
    if left:
        raise ClusterError(f"an earlier cluster in {changes.state_dir} left something behind: {'; '.join(left)}")
