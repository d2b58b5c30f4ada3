"""The cluster's network: a bridge in the control plane's namespace, a veth pair and a subnet of pods for each node.

    control plane 10.90.0.1 ── bridge wp0 ──┬── eth0 10.90.0.11 node-1 ── pods 10.88.1.0/24
                                            └── eth0 10.90.0.12 node-2 ── pods 10.88.2.0/24

None of it is connected to the machine's own network.
"""

from typing import Final

from tests.cluster.namespaces import Namespace

CONTROL_PLANE: Final = "10.90.0.1"
_PREFIX_LENGTH: Final = 24


def node_address(number: int) -> str:
    """Of node `number`, from 1."""
    return f"10.90.0.{10 + number}"


def pod_subnet(number: int) -> str:
    """Where the pods of node `number` live."""
    return f"10.88.{number}.0/24"


def connect_control_plane(namespace: Namespace, nodes: int) -> None:
    """Address, bridge and routes of the control plane's namespace."""
    commands = [
        "ip link set lo up",
        "ip link add wp0 type bridge",
        f"ip addr add {CONTROL_PLANE}/{_PREFIX_LENGTH} dev wp0",
        "ip link set wp0 up",
        # NB: Kubernetes' parts want a default route, though nothing is behind it
        "ip route add default dev wp0",
        *(f"ip route add {pod_subnet(it)} via {node_address(it)}" for it in range(1, nodes + 1)),
        "echo 1 > /proc/sys/net/ipv4/ip_forward",
    ]
    _do(namespace, commands)


def connect_node(control_plane: Namespace, node: Namespace, number: int, nodes: int) -> None:
    """Join a new namespace of node `number` to the bridge. A pair that a lost node left goes first."""
    # NB: only the network namespace is entered: the node's pid is the one that this process sees
    veth = f"veth-{number}"
    plug = [
        f"ip link del {veth} 2>/dev/null || true",
        f"ip link add {veth} type veth peer name eth0 netns {node.init}",
        f"ip link set {veth} master wp0",
        f"ip link set {veth} up",
    ]
    _do(control_plane, plug, kinds="n")
    others = (it for it in range(1, nodes + 1) if it != number)
    commands = [
        "ip link set lo up",
        f"ip addr add {node_address(number)}/{_PREFIX_LENGTH} dev eth0",
        "ip link set eth0 up",
        f"ip route add default via {CONTROL_PLANE}",
        *(f"ip route add {pod_subnet(it)} via {node_address(it)}" for it in others),
        "echo 1 > /proc/sys/net/ipv4/ip_forward",
    ]
    _do(node, commands)


def _do(namespace: Namespace, commands: list[str], *, kinds: str = "mpn") -> None:
    namespace.run(["sh", "-ec", "\n".join(commands)], kinds=kinds)
