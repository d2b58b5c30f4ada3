"""One real cluster with one real node for the session, wasmpool installed on it with Helm, and a namespace per test."""

import contextlib
import itertools
import uuid
from collections.abc import Iterator

import pytest
import yaml

from demo.guests import CONFIG_MAP
from tests.e2e.kube import Kube, KubectlError, pool

_NUMBERS = itertools.count(1)


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


def _namespace(kube: Kube, prefix: str) -> Iterator[str]:
    name = f"{prefix}-{next(_NUMBERS)}-{uuid.uuid4().hex[:6]}"
    kube.kubectl("create", "namespace", name)
    yield name
    # NB: pools first: agents must end before the next test counts huge pages
    with contextlib.suppress(KubectlError):
        kube.kubectl("delete", "wasm,ipool", "--all", "-n", name, "--wait=true", "--timeout=90s")
    kube.until_gone("pods", name, "app.kubernetes.io/name=wasmpool-agent", seconds=90)
    kube.kubectl("delete", "namespace", name, "--wait=false")
