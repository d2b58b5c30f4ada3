"""What tests of failures do to a cluster with nodes that is up: kill one part, start it again, cut a node's power."""

from tests.cluster import lifecycle, machine, namespaces, processes, with_nodes
from tests.cluster.console import ClusterError
from tests.cluster.node import Node
from tests.cluster.running import Running
from tests.cluster.with_nodes import CONTROL_PLANE, Layout


def kill(found: Running, part: str) -> None:
    """SIGKILL to one process, `node-1/kubelet` or `control-plane/etcd` for example; it stays dead."""
    layout = lifecycle.layout_of(found)
    program = dict(layout.expected()).get(part)
    if program is None:
        raise ClusterError(f"{part}: no such part; there are {', '.join(sorted(dict(layout.expected())))}")
    there = processes.named(found.state_dir, part, program)
    if not there:
        raise ClusterError(f"{part} does not run")
    processes.kill(process.pid for process in there)


def start(found: Running, part: str) -> None:
    """Start a part that was killed. It returns before the part is ready for anything."""
    layout = lifecycle.layout_of(found)
    where, _, program = part.partition("/")
    dead = with_nodes.missing(layout)
    if part not in dead:
        raise ClusterError(f"{part}: it can't be started; those that do not run: {', '.join(dead) or 'none'}")
    with_nodes.start(layout, lifecycle.namespace(found, where), program, _programs(layout, where)[program])


def power_off(found: Running, name: str) -> None:
    """A node's power is cut: every process on it ends at once, and its network is gone."""
    _node(lifecycle.layout_of(found), name)
    lifecycle.namespace(found, name).end()


def power_on(found: Running, name: str) -> None:
    """The node boots, with what its disk holds. It returns before the node is Ready."""
    layout = lifecycle.layout_of(found)
    one = _node(layout, name)
    if namespaces.find(found.state_dir, name) is not None:
        raise ClusterError(f"{name} is on")
    with machine.alone():
        held = with_nodes.hold_node(layout, one, lifecycle.namespace(found, CONTROL_PLANE))
        with_nodes.note_network(held)
    with_nodes.wait_for_containerd(one, held, layout.logs)
    for program in ("kubelet", "kube-proxy"):
        with_nodes.start(layout, held, program, one.programs()[program])


def reach(found: Running, host: str, port: int, *, at: str = "node-1") -> int:
    """A port of this machine's loopback that leads to host:port (a pod, a service) as seen from a part of the cluster.

    It is there until that part ends. `enter` runs a whole program in there instead.
    """
    held = lifecycle.namespace(found, at)
    return with_nodes.forward(found.logs, held, host, port, name=f"forward-{host}-{port}")


def _node(layout: Layout, name: str) -> Node:
    for one in layout.every_node():
        if one.name == name:
            return one
    raise ClusterError(f"{name}: no such node; there are {', '.join(one.name for one in layout.every_node())}")


def _programs(layout: Layout, where: str) -> dict[str, list[str]]:
    return layout.control_plane().programs() if where == CONTROL_PLANE else _node(layout, where).programs()
