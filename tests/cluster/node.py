"""A node: what it sees of the machine, and how containerd, kubelet and kube-proxy are configured and started."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.cluster import machine, network
from tests.cluster.binaries import Binaries
from tests.cluster.certificates import Trust
from tests.cluster.console import ClusterError
from tests.cluster.control_plane import POD_RANGE

PAUSE_IMAGE: Final = "wasmpool.dev/pause:1"
OWN: Final = tuple(map(Path, ("/var/lib/kubelet", "/var/lib/cni", "/var/log", "/etc/cni")))
"""Directories of which every node has its own, kept in the state directory. So has it a /run, empty at its start."""
_SOCKET: Final = "/run/containerd/containerd.sock"
_HUGE_PAGES: Final = "hugepages-2048kB/nr_hugepages"
_NUMA: Final = Path("/sys/devices/system/node")


@dataclass(frozen=True)
class Node:
    """Node `number` of `nodes`, counted from 1. `huge_pages`: its share of this machine's, of 2 MiB each."""

    binaries: Binaries
    state_dir: Path
    trust: Trust
    number: int
    nodes: int
    huge_pages: int
    status_seconds: int
    """How often its kubelet says that it is alive."""

    @property
    def name(self) -> str:
        """Of its namespace and of its Node object."""
        return f"node-{self.number}"

    @property
    def address(self) -> str:
        """Its InternalIP."""
        return network.node_address(self.number)

    @property
    def directory(self) -> Path:
        """What it keeps."""
        return self.state_dir / self.name

    @property
    def kubeconfig(self) -> Path:
        """Of its kubelet; the address in it is the one inside the cluster."""
        return self.state_dir / f"{self.name}.kubeconfig"

    @property
    def cgroup(self) -> str:
        """Its name below the root of every hierarchy."""
        return f"wasmpool-{machine.key(self.state_dir)}-{self.name}"

    def environment(self) -> dict[str, str]:
        """PATH with what containerd and kubelet start."""
        wanted = ("containerd-shim-runc-v2", "runc", "ctr")
        own = [str(self.binaries[name].parent) for name in wanted]
        return {"PATH": ":".join([*own, "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"])}

    def prepare(self) -> None:
        """Write its configuration. Idempotent."""
        for directory in (*OWN, Path("/etc/cni/net.d")):
            self._own(directory).mkdir(parents=True, exist_ok=True)
        (self.directory / "nr_hugepages").write_text(f"{self.huge_pages}\n")
        (self.directory / "no_hugepages").write_text("0\n")
        self._own(Path("/etc/cni/net.d/10-pods.conflist")).write_text(json.dumps(self._cni()))
        (self.directory / "containerd.toml").write_text(self._containerd_config())
        (self.directory / "kubelet.yaml").write_text(json.dumps(self._kubelet_config(), indent=1))

    def mounts(self) -> list[str]:
        """The shell command that gives a new mount namespace this node's view of the machine."""
        lines = [f"mount --bind '{self._own(path)}' {path}" for path in OWN]
        lines.append("mount -t tmpfs -o mode=755 wasmpool-run /run")
        # The kubelet takes a machine's pages for its own, and no reservation makes them fewer: it sees its share here.
        share = self.directory / "nr_hugepages"
        lines.append(f"mount --bind '{share}' /sys/kernel/mm/hugepages/{_HUGE_PAGES}")
        for numa in sorted(_NUMA.glob("node[0-9]*")):
            seen = share if numa.name == "node0" else self.directory / "no_hugepages"
            lines.append(f"mount --bind '{seen}' {numa}/hugepages/{_HUGE_PAGES}")
        lines.append("mount --make-rshared /")
        return ["sh", "-ec", "\n".join(lines)]

    def containerd(self) -> list[str]:
        """Keeps its containers when it is killed and started again."""
        return [str(self.binaries["containerd"]), "--config", str(self.directory / "containerd.toml")]

    def kubelet(self) -> list[str]:
        """As a user of the NodeRestriction admission plugin: it may change its own Node and pods only."""
        return [
            str(self.binaries["kubelet"]),
            f"--config={self.directory / 'kubelet.yaml'}",
            f"--kubeconfig={self.kubeconfig}",
            f"--hostname-override={self.name}",
            f"--node-ip={self.address}",
        ]

    def kube_proxy(self) -> list[str]:
        """Makes services work, kubernetes.default first of all."""
        return [
            str(self.binaries["kube-proxy"]),
            f"--kubeconfig={self.state_dir / 'controllers.kubeconfig'}",
            "--proxy-mode=nftables",
            f"--cluster-cidr={POD_RANGE}",
            f"--hostname-override={self.name}",
            f"--bind-address={self.address}",
            f"--nodeport-addresses={self.address}/32",
            "--conntrack-max-per-core=0",
        ]

    def ctr(self, *arguments: str) -> list[str]:
        """containerd's own client, on the images that the kubelet sees."""
        return [str(self.binaries["ctr"]), "--address", _SOCKET, "--namespace", "k8s.io", *arguments]

    def programs(self) -> dict[str, list[str]]:
        """All that run on it, in the order in which they start."""
        return {"containerd": self.containerd(), "kubelet": self.kubelet(), "kube-proxy": self.kube_proxy()}

    def _own(self, path: Path) -> Path:
        return self.directory / "root" / path.relative_to("/")

    def _cni(self) -> dict[str, object]:
        ranges = [[{"subnet": network.pod_subnet(self.number)}]]
        ipam = {"type": "host-local", "ranges": ranges, "routes": [{"dst": "0.0.0.0/0"}]}
        return {"cniVersion": "1.0.0", "name": "pods", "plugins": [{"type": "ptp", "ipMasq": False, "ipam": ipam}]}

    def _containerd_config(self) -> str:
        directories = ", ".join(json.dumps(str(path)) for path in self.binaries.cni_dirs())
        return f"""\
version = 3
root = {json.dumps(str(self.directory / "containerd"))}
state = "/run/containerd"
[grpc]
  address = "{_SOCKET}"
[plugins."io.containerd.cri.v1.images"]
  snapshotter = "{_snapshotter(self.state_dir)}"
[plugins."io.containerd.cri.v1.images".pinned_images]
  sandbox = "{PAUSE_IMAGE}"
[plugins."io.containerd.cri.v1.runtime"]
  # without CAP_SYS_RESOURCE, as in some virtual machines and containers, a score can't be lowered
  restrict_oom_score_adj = true
  netns_mounts_under_state_dir = true
[plugins."io.containerd.cri.v1.runtime".cni]
  bin_dirs = [{directories}]
  conf_dir = "/etc/cni/net.d"
"""

    def _kubelet_config(self) -> dict[str, object]:
        return {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "failCgroupV1": False,
            "cgroupDriver": "cgroupfs",
            "cgroupRoot": f"/{self.cgroup}",
            "containerRuntimeEndpoint": f"unix://{_SOCKET}",
            "authentication": {
                "anonymous": {"enabled": False},
                "webhook": {"enabled": True},
                "x509": {"clientCAFile": str(self.trust.ca)},
            },
            "authorization": {"mode": "Webhook"},
            "address": self.address,
            "port": 10250,
            "healthzPort": 10248,
            "readOnlyPort": 0,
            "failSwapOn": False,
            # NB: this machine's disk is its owner's: nothing of ours is evicted or collected because it is nearly full
            "evictionHard": {},
            "imageGCHighThresholdPercent": 100,
            "localStorageCapacityIsolation": False,
            "resolvConf": "",
            "nodeLeaseDurationSeconds": 4 * self.status_seconds,
            "nodeStatusUpdateFrequency": f"{self.status_seconds}s",
        }


def check_state_dir(state_dir: Path) -> None:
    """Raises ClusterError for one that a node's own mounts would hide from it."""
    hiding = next((path for path in (*OWN, Path("/run")) if state_dir.is_relative_to(path)), None)
    if hiding:
        raise ClusterError(
            f"--state-dir {state_dir}: a node has a {hiding} of its own; take a directory that is not below"
        )


def _snapshotter(state_dir: Path) -> str:
    # NB: overlayfs can't be stacked on the overlayfs of a container
    mounts = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    below = [fields for fields in mounts if state_dir.is_relative_to(fields[1])]
    kind = max(below, key=lambda fields: len(fields[1]))[2]
    return "native" if kind == "overlay" else "overlayfs"
