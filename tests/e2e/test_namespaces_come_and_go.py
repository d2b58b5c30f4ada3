"""Who may use a pool, on a real node: by the labels of namespaces, also after they have changed.

Covers: tenancy.allowedNamespaces Selector; a label that is taken away stops what runs and frees its slots; a label that
comes back starts it again, as the module that it was; All and Same, by an edit of the pool.
"""

import pytest

from tests.e2e.kube import Kube, Object, pool, workload

pytestmark = [pytest.mark.node, pytest.mark.timeout(180)]


def test_a_label_that_is_taken_away_stops_what_runs_and_one_that_comes_starts_it(
    kube: Kube, namespace: str, other_namespace: str, guests: str
) -> None:
    selector = {"matchExpressions": [{"key": "wasmpool-e2e", "operator": "In", "values": [namespace]}]}
    kube.apply(
        pool("small", namespace, count=4, tenancy={"allowedNamespaces": {"from": "Selector", "selector": selector}}),
        _consent(other_namespace, namespace),
        _copy(kube, guests, namespace, other_namespace),
        workload(
            "ticker", other_namespace, pool="small", pool_namespace=namespace, key="ticker.wasm", restartPolicy="Always"
        ),
    )
    kube.until_condition("ipool", "small", namespace, "Ready", "True", seconds=120)
    _until_refused(kube, other_namespace, f"wasmpool-e2e in ({namespace})")

    kube.kubectl("label", "namespace", other_namespace, f"wasmpool-e2e={namespace}")
    kube.until("wasm", "ticker", other_namespace, _runs)
    kube.until("ipool", "small", namespace, lambda it: it["status"]["slots"]["reserved"] == 1)
    digest = kube.get("wasm", "ticker", other_namespace)["status"]["module"]["digest"]

    kube.kubectl("label", "namespace", other_namespace, "wasmpool-e2e-")
    _until_refused(kube, other_namespace, f"wasmpool-e2e in ({namespace})")
    kube.until("ipool", "small", namespace, lambda it: it["status"]["slots"]["reserved"] == 0)
    assert kube.get("wasm", "ticker", other_namespace)["status"]["instances"]["reserved"] == 0

    _allow(kube, namespace, "All")
    kube.until("wasm", "ticker", other_namespace, _runs)
    assert kube.get("wasm", "ticker", other_namespace)["status"]["module"]["digest"] == digest

    _allow(kube, namespace, "Same")
    _until_refused(kube, other_namespace, "its own namespace only (tenancy.allowedNamespaces.from: Same)")
    kube.until("ipool", "small", namespace, lambda it: it["status"]["slots"]["reserved"] == 0)


def _until_refused(kube: Kube, namespace: str, rule: str) -> None:
    found = kube.until_condition("wasm", "ticker", namespace, "Admitted", "False", "NamespaceNotAllowed")
    assert rule in found["message"]
    assert namespace in found["message"]


def _allow(kube: Kube, namespace: str, allowed: str) -> None:
    patch = f'{{"spec":{{"tenancy":{{"allowedNamespaces":{{"from":"{allowed}","selector":null}}}}}}}}'
    kube.kubectl("patch", "ipool", "small", "-n", namespace, "--type=merge", "-p", patch)


def _copy(kube: Kube, name: str, namespace: str, to: str) -> Object:
    found = kube.get("configmap", name, namespace)
    found["metadata"] = {"name": name, "namespace": to}
    return found


def _consent(namespace: str, pool_namespace: str) -> Object:
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "RoleBinding",
        "metadata": {"name": "pool-small-reads-modules", "namespace": namespace},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "wasmpool-module-reader"},
        "subjects": [{"kind": "ServiceAccount", "name": "wasmpool-small", "namespace": pool_namespace}],
    }


def _runs(found: Object) -> bool:
    ready: int = found.get("status", {}).get("instances", {}).get("ready", 0)
    return ready == 1
