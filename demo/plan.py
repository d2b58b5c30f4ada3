"""What the demo will do to the machine, said before it does any of it.

Standard library only, as all of this package: it runs before .venv is made.
"""

from pathlib import Path
from typing import Final

from demo.host import MIB, HugePages, available_memory_mib, cache_directory, free_disk_mib, huge_pages

CLUSTER_HUGE_PAGES: Final = 512
"""Huge pages that a test cluster takes; the example pool takes 16 of them."""
_WANTED_DISK_MIB: Final = 12 * 1024
_WANTED_MEMORY_MIB: Final = 4 * 1024


def cluster_is_built(cache: Path) -> bool:
    """Whether an earlier run left the cluster's binaries; then the long part is skipped."""
    return any(cache.glob("**/kube-apiserver"))


def plan_own_cluster() -> str:
    """The announcement of `make demo`."""
    pages = huge_pages()
    cache = cache_directory()
    if cluster_is_built(cache):
        duration = "about a minute (the cluster's binaries are in the cache)"
    else:
        duration = "10 to 15 minutes on 2 cores, the first time; a minute after that"
    text = f"""\
This is what `make demo` does to this machine. `make down` undoes all but the packages and the caches.

  time        {duration}
  packages    with apt-get: what scripts/install-system-packages.sh lists and this machine lacks;
              in this checkout: Python packages in .venv
  caches      {cache}: built binaries and images (about 3 GiB); Go's and uv's own
  huge pages  {_pages_line(pages)}
  cgroups     mounts the hugetlb controller at /sys/fs/cgroup/hugetlb where nobody has; cgroups for the node
  network     network namespaces of its own with a bridge; a port on 127.0.0.1 leads to the API server
  processes   etcd, Kubernetes' control plane, containerd, kubelet: about 1 GiB of memory
  internet    downloads from the registries of Go modules, Debian and PyPI; sends nothing
"""
    return text + "".join(f"\n  ! {warning}\n" for warning in _warnings(cache))


def plan_existing_cluster(context: str) -> str:
    """The announcement of `make demo CLUSTER=existing`."""
    return f"""\
This is what `make demo CLUSTER=existing` does to the cluster of the context {context!r}.
`make down CLUSTER=existing` undoes it.

  helm        installs charts/wasmpool as release `wasmpool` into namespace `wasmpool-system`: three CRDs, cluster
              roles, admission policies, one operator pod. The images wasmpool.dev/operator:dev and
              wasmpool.dev/agent:dev must be on the nodes: docs/quickstart.md has the commands for kind and minikube
  examples    applies examples/ to namespace `default`: one InstancePool, five WasmWorkloads, one ConfigMap
  every node  gets one agent pod with 32 MiB of huge pages: it needs 16 free pages of 2 MiB
  here        .venv in this checkout; nothing else
"""


def _pages_line(pages: HugePages) -> str:
    return (
        f"{pages.total} of {pages.page_bytes // MIB} MiB now, {pages.free} free; adds {CLUSTER_HUGE_PAGES} of 2 MiB "
        f"= {CLUSTER_HUGE_PAGES * 2} MiB"
    )


def _warnings(cache: Path) -> list[str]:
    warnings: list[str] = []
    disk, memory = free_disk_mib(cache), available_memory_mib()
    if disk < _WANTED_DISK_MIB:
        warnings.append(f"{disk} MiB are free where {cache} is; {_WANTED_DISK_MIB} MiB are wanted")
    if memory < _WANTED_MEMORY_MIB:
        warnings.append(f"{memory} MiB of memory are available; {_WANTED_MEMORY_MIB} MiB are wanted")
    return warnings
