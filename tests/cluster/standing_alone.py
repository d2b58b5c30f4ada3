"""A control plane without nodes: plain processes on free ports of 127.0.0.1. No root; several may run at once."""

import contextlib
import datetime
import os
import shutil
import socket
from pathlib import Path

from tests.cluster import binaries, processes, running
from tests.cluster.certificates import Authority
from tests.cluster.client import Credentials
from tests.cluster.console import ClusterError, say, step
from tests.cluster.control_plane import (
    SERVICE_ADDRESS,
    ControlPlane,
    Listening,
    wait_until_ready,
    write_kubeconfig,
    write_tokens,
)
from tests.cluster.running import Running

_ATTEMPTS = 3


def up(state_dir: Path, *, controllers: bool, owned: bool) -> Running:
    """Boot etcd and the API server, and the controller manager and scheduler if `controllers`. Raises ClusterError.

    `owned`: the kernel ends it with this process.
    """
    programs = binaries.ready(binaries.names_for(0, controllers=controllers))
    with step("control plane is up"):
        for attempt in range(1, _ATTEMPTS + 1):
            down(state_dir)
            try:
                return _boot(state_dir, programs, controllers=controllers, owned=owned)
            except ClusterError as error:
                down(state_dir)
                # NB: between finding a free port and listening on it, somebody else may have taken it
                if attempt == _ATTEMPTS or "address already in use" not in str(error):
                    raise
                say("a port was taken meanwhile; trying with others")
    raise AssertionError("unreachable: the last attempt raises")


def down(state_dir: Path) -> None:
    """End all its processes and remove what they left, but for the logs. Idempotent."""
    # NB: an API server that is asked kindly takes tens of seconds, and there is nothing here that it could save
    processes.kill(found.pid for found in processes.all_of(state_dir))
    with contextlib.suppress(FileNotFoundError):
        for entry in state_dir.iterdir():
            if entry.name == "logs":
                continue
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            else:
                entry.unlink()


def is_up(running_: Running) -> bool:
    """Whether the API server of this cluster runs."""
    return bool(processes.named(running_.state_dir, "kube-apiserver", "kube-apiserver"))


def _boot(state_dir: Path, programs: binaries.Binaries, *, controllers: bool, owned: bool) -> Running:
    state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    logs = state_dir / "logs"
    shutil.rmtree(logs, ignore_errors=True)
    api, etcd, peer = _free_ports(3)
    listening = Listening(bind="127.0.0.1", address="127.0.0.1", api=api, etcd=etcd, etcd_peer=peer)
    authority = Authority(state_dir / "trust", now=datetime.datetime.now(datetime.UTC))
    authority.serve("apiserver", ["127.0.0.1", SERVICE_ADDRESS])
    authority.identify("kubelet-client", "kube-apiserver", ["system:masters"])
    authority.sign_service_accounts()
    token = write_tokens(state_dir / "tokens.csv", [])["admin"]
    for name in ("kubeconfig", "controllers.kubeconfig"):
        write_kubeconfig(state_dir / name, listening.server, authority.trust.ca, token)
    parts = ControlPlane(programs, state_dir, authority.trust, listening, alone=not controllers, node_grace_seconds=20)

    def start(name: str, argv: list[str]) -> int:
        return processes.start(argv, state_dir=state_dir, name=name, log=logs / f"{name}.log", owned=owned)

    pids = {"etcd": start("etcd", parts.etcd()), "kube-apiserver": start("kube-apiserver", parts.api_server())}

    def ended() -> str | None:
        return next((name for name, pid in pids.items() if not processes.is_alive(pid)), None)

    wait_until_ready(Credentials(listening.server, authority.trust.ca, token), ended, logs)
    if controllers:
        pids["kube-controller-manager"] = start("kube-controller-manager", parts.controller_manager())
        pids["kube-scheduler"] = start("kube-scheduler", parts.scheduler())
    owner = os.getpid() if owned else None
    made = Running(state_dir, nodes=0, server=listening.server, token=token, huge_pages=0, owner=owner)
    running.save(made)
    return made


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in sockets]
