"""etcd, the API server, the controller manager and the scheduler: their command lines, and when they are up."""

import http.client
import json
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.cluster.binaries import Binaries
from tests.cluster.certificates import Trust
from tests.cluster.client import ApiError, Client, Credentials
from tests.cluster.console import ClusterError
from tests.cluster.processes import tail

SERVICE_RANGE: Final = "10.96.0.0/16"
SERVICE_ADDRESS: Final = "10.96.0.1"
"""Of `kubernetes.default.svc`."""
POD_RANGE: Final = "10.88.0.0/16"


@dataclass(frozen=True)
class Listening:
    """`bind`: where the API server listens; `address`: how the parts reach it; three TCP ports."""

    bind: str
    address: str
    api: int
    etcd: int
    etcd_peer: int

    @property
    def server(self) -> str:
        """URL of the API server."""
        return f"https://{self.address}:{self.api}"


@dataclass(frozen=True)
class ControlPlane:
    """Command lines. `alone`: no controllers run beside the API server."""

    binaries: Binaries
    directory: Path
    trust: Trust
    listening: Listening
    alone: bool
    node_grace_seconds: int

    def programs(self) -> dict[str, list[str]]:
        """All of them, in the order in which they start."""
        return {
            "etcd": self.etcd(),
            "kube-apiserver": self.api_server(),
            "kube-controller-manager": self.controller_manager(),
            "kube-scheduler": self.scheduler(),
        }

    def etcd(self) -> list[str]:
        """Keeps nothing safe from a power failure: that makes it fast."""
        client = f"http://127.0.0.1:{self.listening.etcd}"
        peer = f"http://127.0.0.1:{self.listening.etcd_peer}"
        return [
            str(self.binaries["etcd"]),
            f"--data-dir={self.directory / 'etcd'}",
            f"--listen-client-urls={client}",
            f"--advertise-client-urls={client}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster=default={peer}",
            "--unsafe-no-fsync",
        ]

    def api_server(self) -> list[str]:
        """RBAC and the node authorizer, admission as in a good cluster."""
        keys = self.trust.key("service-accounts")
        argv = [
            str(self.binaries["kube-apiserver"]),
            f"--etcd-servers=http://127.0.0.1:{self.listening.etcd}",
            f"--bind-address={self.listening.bind}",
            f"--advertise-address={self.listening.address}",
            f"--secure-port={self.listening.api}",
            f"--tls-cert-file={self.trust.certificate('apiserver')}",
            f"--tls-private-key-file={self.trust.key('apiserver')}",
            f"--client-ca-file={self.trust.ca}",
            f"--kubelet-client-certificate={self.trust.certificate('kubelet-client')}",
            f"--kubelet-client-key={self.trust.key('kubelet-client')}",
            "--kubelet-preferred-address-types=InternalIP",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={keys}",
            f"--service-account-signing-key-file={keys}",
            f"--token-auth-file={self.directory / 'tokens.csv'}",
            "--authorization-mode=Node,RBAC",
            "--enable-admission-plugins=NodeRestriction,OwnerReferencesPermissionEnforcement",
            f"--service-cluster-ip-range={SERVICE_RANGE}",
            "--allow-privileged=true",
        ]
        if self.alone:
            # Nobody makes the default service accounts that this plugin wants every pod to have; and there is no
            # address at which the server could be published.
            argv += ["--disable-admission-plugins=ServiceAccount", "--endpoint-reconciler-type=none"]
        return argv

    def controller_manager(self) -> list[str]:
        """Notices a lost node after `node_grace_seconds`."""
        kubeconfig = self.directory / "controllers.kubeconfig"
        return [
            str(self.binaries["kube-controller-manager"]),
            f"--kubeconfig={kubeconfig}",
            f"--service-account-private-key-file={self.trust.key('service-accounts')}",
            "--use-service-account-credentials=true",
            f"--root-ca-file={self.trust.ca}",
            "--leader-elect=false",
            "--secure-port=0",
            "--node-monitor-period=1s",
            f"--node-monitor-grace-period={self.node_grace_seconds}s",
        ]

    def scheduler(self) -> list[str]:
        """As it comes."""
        kubeconfig = self.directory / "controllers.kubeconfig"
        return [
            str(self.binaries["kube-scheduler"]),
            f"--kubeconfig={kubeconfig}",
            "--leader-elect=false",
            "--secure-port=0",
        ]


def write_tokens(path: Path, nodes: list[str]) -> dict[str, str]:
    """New tokens: `admin`, and one for each node's kubelet; returned by user."""
    tokens = {user: secrets.token_urlsafe(32) for user in ("admin", *nodes)}
    lines = [f"{tokens['admin']},admin,admin,system:masters"]
    lines += [f"{tokens[node]},system:node:{node},{node},system:nodes" for node in nodes]
    path.touch(mode=0o600)
    path.write_text("\n".join(lines) + "\n")
    return tokens


def write_kubeconfig(path: Path, server: str, ca: Path, token: str) -> None:
    """For kubectl, helm, Python clients and the cluster's own parts. JSON is YAML."""
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [
            {
                "name": "wasmpool-tests",
                "cluster": {
                    "server": server,
                    # NB: not its content: of that clients make files, and leave them when they are killed.
                    "certificate-authority": str(ca.absolute()),
                },
            }
        ],
        "users": [{"name": "wasmpool-tests", "user": {"token": token}}],
        "contexts": [{"name": "wasmpool-tests", "context": {"cluster": "wasmpool-tests", "user": "wasmpool-tests"}}],
        "current-context": "wasmpool-tests",
    }
    path.touch(mode=0o600)
    path.write_text(json.dumps(document, indent=1) + "\n")


def wait_until_ready(
    credentials: Credentials, alive: Callable[[], str | None], logs: Path, *, seconds: float = 90
) -> None:
    """Return when the API server serves. Raises ClusterError after `seconds`, or at once when `alive` names a process
    that has ended; with the end of its log."""
    client = Client(credentials, timeout=5)
    deadline = time.monotonic() + seconds
    try:
        while True:
            try:
                client.text("/readyz")
            except (OSError, http.client.HTTPException, ApiError) as error:
                problem = error
            else:
                return
            ended = alive()
            if ended:
                raise ClusterError(f"{ended} has ended; the last lines of its log:\n{tail(logs / f'{ended}.log')}")
            if time.monotonic() > deadline:
                raise ClusterError(
                    f"the API server was not ready within {seconds:.0f} s ({problem}); the last lines of its log:\n"
                    f"{tail(logs / 'kube-apiserver.log')}"
                )
            time.sleep(0.1)
    finally:
        client.close()
