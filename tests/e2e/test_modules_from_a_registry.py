"""Modules out of a real registry on a real node: TLS by an authority of one's own, pull secrets by consent.

Covers: a private image that waits for consent and then runs; another tenant that can't pull what is in the cache; a
refused tag that moves; a cache on the node that outlives the agent's pod, without the registry.
"""

import base64
import datetime
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
import yaml

from demo.guests import CONFIG_MAP
from tests.cluster import lifecycle, network
from tests.cluster.certificates import Authority
from tests.cluster.running import Running
from tests.e2e.kube import NODE_CACHES, Kube, Object, condition, pool, workload
from tests.oci.registry import ADA, BOB, Login, Registry
from wasmpool_api.meta import agent_name

pytestmark = [pytest.mark.node, pytest.mark.timeout(240)]

AGENT_USER: Final = 65532
PULL_SECRET: Final = "registry"  # noqa: S105 - its name


@pytest.fixture
def registry(cluster: Running, kube: Kube, tmp_path: Path) -> Iterator[Registry]:
    """On the cluster's own network, where nobody else is."""
    authority = Authority(tmp_path / "trust", now=datetime.datetime.now(datetime.UTC))
    authority.serve("registry", [network.CONTROL_PLANE])
    there = lifecycle.namespace(cluster, "control-plane")
    with Registry(
        tmp_path / "registry",
        address=network.CONTROL_PLANE,
        trust=authority.trust,
        logins=(ADA, BOB),
        enter=there.enter((), kinds="n"),
    ) as made:
        yield made


@pytest.fixture
def node_cache(namespace: str) -> Iterator[Path]:
    """A directory of the node, and in it the one of the agents of pool `small`."""
    directory = Path(NODE_CACHES) / f"{namespace}.small"
    directory.mkdir(mode=0o700)
    os.chown(directory, AGENT_USER, AGENT_USER)
    yield directory.parent
    shutil.rmtree(directory)


def test_a_private_image_runs_once_its_secret_may_be_read(
    kube: Kube, registry: Registry, namespace: str, other_namespace: str
) -> None:
    digest = registry.push_artifact("acme/hello:1", {"hello.wasm": guest("hello.wasm")})
    kube.apply(reached(registry, pool("small", namespace, count=8, tenancy=everybody())))
    kube.until_condition("ipool", "small", namespace, "Ready", "True", seconds=120)
    kube.apply(pull_secret(registry, other_namespace, ADA), pulled(registry, "hello", other_namespace, namespace))

    def waits_for_consent(found: Object) -> bool:
        admitted = condition(found, "Admitted")
        return admitted.get("reason") == "ModulePullFailed" and "RoleBinding" in admitted["message"]

    found = kube.until("wasm", "hello", other_namespace, waits_for_consent)
    message = condition(found, "Admitted")["message"]
    assert f"Secret {other_namespace}/{PULL_SECRET} may not be read by the agents of pool small" in message
    assert f"ServiceAccount {namespace}/{agent_name('small')}" in message

    consent(kube, other_namespace, namespace)
    kube.until_condition("wasm", "hello", other_namespace, "Finished", "True", seconds=120)
    status = kube.get("wasm", "hello", other_namespace)["status"]
    assert status["instances"]["succeeded"] == 1
    assert status["module"]["image"] == f"{registry.host}/acme/hello@{digest}"

    # In the cache now, and still nobody's who has no credentials for it.
    kube.apply(pulled(registry, "thief", namespace, namespace, secret=False, image=f"acme/hello@{digest}"))
    refused = kube.until("wasm", "thief", namespace, lambda it: "401" in condition(it, "Admitted").get("message", ""))
    assert condition(refused, "Admitted")["reason"] == "ModulePullFailed"
    assert "without credentials" in condition(refused, "Admitted")["message"]


def test_a_refused_tag_is_looked_at_again_and_its_successor_runs(
    kube: Kube, registry: Registry, namespace: str
) -> None:
    registry.push_artifact("acme/app:1", {"app.wasm": guest("too-big.wasm")})
    kube.apply(reached(registry, pool("small", namespace, count=4, imagePullSecrets=[{"name": PULL_SECRET}])))
    kube.apply(pull_secret(registry, namespace, BOB))
    kube.until_condition("ipool", "small", namespace, "Ready", "True", seconds=120)
    kube.apply(pulled(registry, "app", namespace, namespace, secret=False, image="acme/app:1"))
    kube.until("wasm", "app", namespace, lambda it: condition(it, "Admitted").get("reason") == "ExceedsModuleLimits")
    registry.push_artifact("acme/app:1", {"app.wasm": guest("hello.wasm")})
    kube.until_condition("wasm", "app", namespace, "Finished", "True", seconds=120)


def test_a_cache_on_the_node_outlives_the_agents_pod_and_needs_no_registry(
    kube: Kube, registry: Registry, namespace: str, node_cache: Path
) -> None:
    registry.push_artifact("acme/ticker:1", {"ticker.wasm": guest("ticker.wasm")})
    kube.apply(
        pull_secret(registry, namespace, ADA),
        reached(registry, pool("small", namespace, count=4, imagePullSecrets=[{"name": PULL_SECRET}]), str(node_cache)),
    )
    kube.until_condition("ipool", "small", namespace, "Ready", "True", seconds=120)
    kube.apply(pulled(registry, "ticker", namespace, namespace, secret=False, restart_policy="Always"))
    kube.until("wasm", "ticker", namespace, lambda it: it["status"].get("instances", {}).get("ready") == 1)
    registry.stop()

    (before,) = agents(kube, namespace)
    kube.kubectl("delete", "pod", before["metadata"]["name"], "-n", namespace, "--wait=true", "--timeout=90s")
    kube.until_condition("ipool", "small", namespace, "Ready", "True", seconds=120)
    kube.until("wasm", "ticker", namespace, lambda it: it["status"].get("instances", {}).get("ready") == 1, seconds=120)
    (after,) = agents(kube, namespace)
    assert after["metadata"]["uid"] != before["metadata"]["uid"]
    where = f"/api/v1/namespaces/{namespace}/pods/{after['metadata']['name']}:9464/proxy/metrics"
    text = kube.kubectl("get", "--raw", where)
    hits = [line for line in text.splitlines() if line.startswith("wasmpool_cache_requests_total{") and '"hit"' in line]
    assert {line.split('kind="')[1].split('"')[0]: float(line.split()[-1]) for line in hits} == {
        "modules": 1.0,
        "compiled": 1.0,
    }


def guest(name: str) -> bytes:
    """A program of examples/."""
    entries: dict[str, str] = yaml.safe_load(CONFIG_MAP.read_text())["binaryData"]
    return base64.b64decode(entries[name])


def everybody() -> Object:
    """All namespaces may use the pool."""
    return {"allowedNamespaces": {"from": "All"}}


def reached(registry: Registry, manifest: Object, host_path: str = "") -> Object:
    """The pool, told of the registry's authority."""
    assert registry.ca is not None
    bundle = base64.b64encode(registry.ca).decode()
    manifest["spec"]["registries"] = [{"host": registry.host, "caBundle": bundle}]
    if host_path:
        manifest["spec"]["agent"] = {"cache": {"hostPath": host_path}}
    return manifest


def pull_secret(registry: Registry, namespace: str, login: Login) -> Object:
    """As `kubectl create secret docker-registry` makes it."""
    auths = {registry.host: {"username": login.name, "password": login.password}}
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": PULL_SECRET, "namespace": namespace},
        "type": "kubernetes.io/dockerconfigjson",
        "stringData": {".dockerconfigjson": json.dumps({"auths": auths})},
    }


def pulled(
    registry: Registry,
    name: str,
    namespace: str,
    pool_namespace: str,
    *,
    secret: bool = True,
    image: str = "",
    restart_policy: str = "Never",
) -> Object:
    """A workload of pool `small` whose module is an image."""
    manifest = workload(
        name, namespace, pool="small", key="", pool_namespace=pool_namespace, restartPolicy=restart_policy
    )
    module: Object = {"image": f"{registry.host}/{image or f'acme/{name}:1'}"}
    if secret:
        module["imagePullSecrets"] = [{"name": PULL_SECRET}]
    manifest["spec"]["module"] = module
    return manifest


def consent(kube: Kube, namespace: str, pool_namespace: str) -> None:
    """To that one Secret, as docs/modules.md says."""
    kube.kubectl(
        *("create", "role", "wasmpool-pull", "-n", namespace),
        *("--verb=get", "--resource=secrets", f"--resource-name={PULL_SECRET}"),
    )
    account = f"--serviceaccount={pool_namespace}:{agent_name('small')}"
    kube.kubectl("create", "rolebinding", "wasmpool-pull", "-n", namespace, "--role=wasmpool-pull", account)


def agents(kube: Kube, namespace: str) -> list[Object]:
    """The pool's agent pods."""
    return kube.all_of("pods", namespace, "app.kubernetes.io/name=wasmpool-agent")
