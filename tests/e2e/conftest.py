"""One real cluster with one real node for the session, wasmpool installed on it with Helm, and a namespace per test."""

import contextlib
import itertools
import uuid
from collections.abc import Generator, Iterator, Sequence
from subprocess import CompletedProcess

import pytest
import yaml

from demo.access import RELEASE, ROOT, SYSTEM_NAMESPACE
from demo.guests import CONFIG_MAP
from tests.cluster import images
from tests.cluster.running import Running
from tests.e2e.kube import NODE_CACHES, PAGE_BYTES, Kube, KubectlError, pool
from wasmpool_api.quantities import Quantity

_NUMBERS = itertools.count(1)
_INSTALL = (
    "upgrade",
    "--install",
    RELEASE,
    str(ROOT / "charts" / "wasmpool"),
    "-n",
    SYSTEM_NAMESPACE,
    "--create-namespace",
    # Where tests make the directories of nodes that outlive an agent's pod.
    "--set",
    f"agent.cacheHostPaths={{{NODE_CACHES}}}",
)


@pytest.fixture(scope="session")
def kube(cluster: Running) -> Kube:
    """The real cluster with one node, and wasmpool installed on it as a user would: with Helm, from the checkout."""
    tags = (f"{image.name}.image.tag={images.install(cluster, image)}" for image in images.IMAGES)
    cluster.helm(*_INSTALL, *(part for tag in tags for part in ("--set-string", tag)))
    # NB: the images' tag is always the same: an operator of an earlier session would go on with the code of that time
    cluster.kubectl("rollout", "restart", "deployment", "-n", SYSTEM_NAMESPACE)
    cluster.kubectl("rollout", "status", "deployment", "-n", SYSTEM_NAMESPACE, "--timeout=120s", timeout=150)

    def run(arguments: Sequence[str], *, stdin: str | None = None) -> CompletedProcess[str]:
        return cluster.kubectl(*arguments, stdin=stdin, check=False)

    return Kube(run)


@pytest.fixture(scope="session")
def node_huge_pages(cluster: Running, kube: Kube) -> int:
    """Huge pages that the node has for pods, as its kubelet says."""
    (node,) = kube.all_of("nodes", "")
    allocatable: str = node["status"]["allocatable"]["hugepages-2Mi"]
    pages = Quantity.parse(allocatable) // PAGE_BYTES
    assert pages >= 32, f"the tests' pools need 32 huge pages of 2 MiB, {cluster.node_names[0]} has {pages}"
    return pages


@pytest.fixture
def namespace(kube: Kube) -> Iterator[str]:
    """A namespace of the test's own; everything in it is gone, and the huge pages are back, before the next test."""
    yield from _namespace(kube, "e2e")


@pytest.fixture
def other_namespace(kube: Kube) -> Iterator[str]:
    """A second tenant's namespace."""
    yield from _namespace(kube, "tenant")


@pytest.fixture
def small_pool(kube: Kube, namespace: str) -> str:
    """A Ready pool `small` with 8 slots of 2 MiB in the test's namespace, whose name this is."""
    kube.apply(pool("small", namespace, count=8))
    kube.until_condition("ipool", "small", namespace, "Ready", "True", seconds=120)
    return namespace


@pytest.fixture
def guests(kube: Kube, namespace: str) -> str:
    """The ConfigMap with the modules of examples/, in the test's namespace; this is its name."""
    manifest = yaml.safe_load(CONFIG_MAP.read_text())
    manifest["metadata"]["namespace"] = namespace
    kube.apply(manifest)
    name: str = manifest["metadata"]["name"]
    return name


@contextlib.contextmanager
def namespace_of_its_own(kube: Kube, prefix: str) -> Generator[str]:
    """For fixtures of another scope than a test's."""
    yield from _namespace(kube, prefix)


def _namespace(kube: Kube, prefix: str) -> Generator[str]:
    name = f"{prefix}-{next(_NUMBERS)}-{uuid.uuid4().hex[:6]}"
    kube.kubectl("create", "namespace", name)
    yield name
    # NB: pools first: agents must end before the next test counts huge pages
    with contextlib.suppress(KubectlError):
        kube.kubectl("delete", "wasm,ipool", "--all", "-n", name, "--wait=true", "--timeout=90s")
    kube.until_gone("pods", name, "app.kubernetes.io/name=wasmpool-agent", seconds=90)
    kube.kubectl("delete", "namespace", name, "--wait=false")
