"""A cluster with real nodes: control plane and nodes in namespaces of their own, one way for one node and for two."""

import contextlib
import datetime
import http.client
import os
import shutil
import socket
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from tests.cluster import cgroups, machine, namespaces, network, node, oci, processes, running
from tests.cluster.binaries import Binaries
from tests.cluster.certificates import Authority, Trust
from tests.cluster.client import ApiError, Client, Credentials
from tests.cluster.console import ClusterError, step
from tests.cluster.control_plane import (
    SERVICE_ADDRESS,
    ControlPlane,
    Listening,
    wait_until_ready,
    write_kubeconfig,
    write_tokens,
)
from tests.cluster.namespaces import Namespace
from tests.cluster.node import Node
from tests.cluster.running import Running

CONTROL_PLANE: Final = "control-plane"
_FORWARD: Final = Path(__file__).with_name("forward.py")
_LISTENING: Final = Listening(bind="0.0.0.0", address=network.CONTROL_PLANE, api=6443, etcd=2379, etcd_peer=2380)  # noqa: S104 of its own namespace
_NODE_GRACE_SECONDS: Final = 16
_NODE_STATUS_SECONDS: Final = 2
_BECOMING_SECONDS: Final = 3


@dataclass(frozen=True)
class Layout:
    """Everything about a cluster that can be told before it runs, and again while it does."""

    binaries: Binaries
    state_dir: Path
    nodes: int
    huge_pages: int
    owned: bool

    @property
    def trust(self) -> Trust:
        """Certificates and keys."""
        return Trust(self.state_dir / "trust")

    @property
    def logs(self) -> Path:
        """A directory of logs for each namespace."""
        return self.state_dir / "logs"

    def node(self, number: int) -> Node:
        """From 1."""
        share = self.huge_pages // self.nodes
        return Node(self.binaries, self.state_dir, self.trust, number, self.nodes, share, _NODE_STATUS_SECONDS)

    def every_node(self) -> list[Node]:
        """All of them."""
        return [self.node(number) for number in range(1, self.nodes + 1)]

    def control_plane(self) -> ControlPlane:
        """Its command lines."""
        return ControlPlane(
            self.binaries,
            self.state_dir,
            self.trust,
            _LISTENING,
            alone=False,
            node_grace_seconds=_NODE_GRACE_SECONDS,
        )

    def expected(self) -> set[tuple[str, str]]:
        """Name and program of every process that a healthy cluster has."""
        parts = self.control_plane().programs()
        found = {(f"{CONTROL_PLANE}/{part}", self.binaries[part].resolve().name) for part in parts}
        for one in self.every_node():
            found |= {(f"{one.name}/{it}", self.binaries[it].resolve().name) for it in one.programs()}
        return found


def up(layout: Layout) -> Running:
    """Boot it, on a machine where `down` has just been. After a ClusterError there may be something left for `down`."""
    groups = [one.cgroup for one in layout.every_node()]
    changes = machine.record(machine.Changes(str(layout.state_dir), cgroups=groups))
    changes = machine.make_directories(changes, list(node.OWN))
    changes = machine.mount_hugetlb(changes)
    machine.add_huge_pages(changes, layout.huge_pages)
    shutil.rmtree(layout.logs, ignore_errors=True)
    token = _write_files(layout)

    with step("API server answers"):
        control_plane = _hold(layout, CONTROL_PLANE)
        network.connect_control_plane(control_plane, layout.nodes)
        note_network(control_plane)
        programs = layout.control_plane().programs()
        for part in ("etcd", "kube-apiserver"):
            start(layout, control_plane, part, programs[part])
        server = _forward(layout, control_plane)
        write_kubeconfig(layout.state_dir / "kubeconfig", server, layout.trust.ca, token)
        # The nodes get ready for their kubelets while the API server starts.
        nodes = {one.name: hold_node(layout, one, control_plane) for one in layout.every_node()}
        for held in nodes.values():
            note_network(held)
        _load_pause(layout, nodes)
        credentials = Credentials(server, layout.trust.ca, token)
        wait_until_ready(credentials, lambda: _ended(layout, ("etcd", "kube-apiserver")), layout.logs / CONTROL_PLANE)

    with step(f"{layout.nodes} node(s) Ready"):
        for part in ("kube-controller-manager", "kube-scheduler"):
            start(layout, control_plane, part, programs[part])
        for one in layout.every_node():
            for program in ("kubelet", "kube-proxy"):
                start(layout, nodes[one.name], program, one.programs()[program])
        with Client(credentials) as client:
            wait_for_nodes(client, layout)
    owner = os.getpid() if layout.owned else None
    made = Running(layout.state_dir, layout.nodes, server, token, layout.huge_pages, owner)
    running.save(made)
    return made


def down(changes: machine.Changes) -> list[str]:
    """End all of the cluster that made these changes, and give back what it took; what is still left, in words."""
    state_dir = Path(changes.state_dir)
    (state_dir / running.STATE_FILE).unlink(missing_ok=True)
    names = sorted({found.name.partition("/")[0] for found in processes.all_of(state_dir)} - {CONTROL_PLANE})
    for name in (*names, CONTROL_PLANE):
        held = namespaces.find(state_dir, name)
        if held:
            held.end()
    processes.kill(found.pid for found in processes.all_of(state_dir))
    for name in changes.cgroups:
        cgroups.remove(name)
    changes = machine.give_back(changes)
    with contextlib.suppress(FileNotFoundError):
        for entry in state_dir.iterdir():
            if entry.is_dir() and entry.name != "logs":
                shutil.rmtree(entry)
            elif not entry.is_dir():
                entry.unlink()
    left = machine.leftovers(changes)
    left += [f"process {found.pid} ({found.name}) still runs" for found in processes.all_of(state_dir)]
    if not left:
        machine.forget(changes)
    return left


def missing(layout: Layout) -> list[str]:
    """The parts that a healthy cluster has and this one has not."""
    there = {(found.name, found.program) for found in processes.all_of(layout.state_dir)}
    return sorted(name for name, _ in layout.expected() - there)


def start(layout: Layout, held: Namespace, program: str, argv: list[str]) -> None:
    """Start one part in its namespace."""
    number = int(held.name.rpartition("-")[2]) if held.name != CONTROL_PLANE else 0
    environment = layout.node(number).environment() if number else {}
    held.start(program, argv, log=layout.logs / held.name / f"{program}.log", environment=environment)


def hold_node(layout: Layout, one: Node, control_plane: Namespace) -> Namespace:
    """A node's namespaces, its network and its containerd; its kubelet is still to be started."""
    cgroups.create(one.cgroup, one.huge_pages)
    one.prepare()
    held = _hold(layout, one.name)
    network.connect_node(control_plane, held, one.number, layout.nodes)
    held.run(one.mounts())
    start(layout, held, "containerd", one.containerd())
    return held


def wait_for_nodes(client: Client, layout: Layout, *, seconds: float = 90) -> None:
    """Return when all are Ready. Raises ClusterError with what the slowest says, and the end of its kubelet's log."""
    began = time.monotonic()
    deadline = began + seconds
    while True:
        waiting = _not_ready(client, layout)
        if not waiting:
            return
        # NB: a process that was just started is still the shell or the setsid that becomes it
        gone = missing(layout) if time.monotonic() > began + _BECOMING_SECONDS else []
        if gone or time.monotonic() > deadline:
            name, says = waiting[0]
            log = layout.logs / (gone[0] if gone else f"{name}/kubelet")
            why = f"{gone[0]} has ended" if gone else f"{name} is not Ready after {seconds:.0f} s: {says}"
            raise ClusterError(f"{why}; the end of {log}.log:\n{processes.tail(log.with_name(log.name + '.log'))}")
        time.sleep(0.1)


def note_network(held: Namespace) -> None:
    """Write down that there is this network namespace, for `down` to see that it is gone."""
    changes = machine.recorded(held.state_dir)
    if changes is not None:
        name = str(Path(f"/proc/{held.init}/ns/net").readlink())
        machine.record(replace(changes, network_namespaces=[*changes.network_namespaces, name]))


def _not_ready(client: Client, layout: Layout) -> list[tuple[str, str]]:
    try:
        items = client.get("/api/v1/nodes")["items"]
    except (OSError, http.client.HTTPException, ApiError) as error:
        return [("node-1", str(error))]
    says = {one.name: "it has not registered" for one in layout.every_node()}
    for item in items:
        for condition in item.get("status", {}).get("conditions", []):
            if condition["type"] == "Ready":
                name = item["metadata"]["name"]
                says[name] = "" if condition["status"] == "True" else condition["message"]
    return [(name, message) for name, message in says.items() if message]


def _write_files(layout: Layout) -> str:
    """Certificates, tokens and kubeconfigs; the administrator's token."""
    layout.state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    authority = Authority(layout.trust.directory, now=datetime.datetime.now(datetime.UTC))
    authority.serve("apiserver", ["127.0.0.1", SERVICE_ADDRESS, network.CONTROL_PLANE])
    authority.identify("kubelet-client", "kube-apiserver", ["system:masters"])
    authority.sign_service_accounts()
    nodes = layout.every_node()
    tokens = write_tokens(layout.state_dir / "tokens.csv", [one.name for one in nodes])
    write_kubeconfig(layout.state_dir / "controllers.kubeconfig", _LISTENING.server, layout.trust.ca, tokens["admin"])
    for one in nodes:
        write_kubeconfig(one.kubeconfig, _LISTENING.server, layout.trust.ca, tokens[one.name])
    return tokens["admin"]


def _hold(layout: Layout, name: str) -> Namespace:
    return namespaces.hold(layout.state_dir, name, log=layout.logs / name / "init.log", owned=layout.owned)


def _forward(layout: Layout, control_plane: Namespace) -> str:
    """A port of this machine's loopback that leads to the API server; its URL."""
    return "https://127.0.0.1:{}".format(
        forward(layout.logs, control_plane, network.CONTROL_PLANE, _LISTENING.api, name="forward")
    )


def forward(logs: Path, held: Namespace, host: str, port: int, *, name: str) -> int:
    """A port of 127.0.0.1 that leads to host:port as seen from `held`. It ends with the namespace."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        argv = [sys.executable, "-I", "-S", str(_FORWARD), str(listener.fileno()), host, str(port)]
        log = logs / held.name / f"{name}.log"
        held.start(name, argv, log=log, environment={}, descriptors=[listener.fileno()])
        return int(listener.getsockname()[1])


def _load_pause(layout: Layout, nodes: dict[str, Namespace]) -> None:
    archive = layout.state_dir / "pause.tar"
    oci.pack_program(layout.binaries["pause"], node.PAUSE_IMAGE, archive)
    for one in layout.every_node():
        held = nodes[one.name]
        wait_for_containerd(one, held, layout.logs)
        held.run(one.ctr("images", "import", str(archive)))


def wait_for_containerd(one: Node, held: Namespace, logs: Path, *, seconds: float = 30) -> None:
    """Return when it answers."""
    deadline = time.monotonic() + seconds
    while True:
        with contextlib.suppress(ClusterError):
            held.run(one.ctr("--timeout=3s", "version"), timeout=10)
            return
        if time.monotonic() > deadline:
            log = processes.tail(logs / one.name / "containerd.log")
            raise ClusterError(f"containerd of {one.name} did not answer within {seconds:.0f} s:\n{log}")
        time.sleep(0.1)


def _ended(layout: Layout, programs: tuple[str, ...]) -> str | None:
    there = {found.name for found in processes.all_of(layout.state_dir)}
    return next((program for program in programs if f"{CONTROL_PLANE}/{program}" not in there), None)
