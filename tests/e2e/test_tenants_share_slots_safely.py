"""Two tenants of one slot: what one left there, the next never sees.

Covers: a pool with a single slot, open to all namespaces; a guest that fills its whole memory and ends by itself, by a
trap, or by its deadline; the next tenant's guest, which reads its whole memory before it writes any.
"""

import base64
from pathlib import Path

import pytest
import wasmtime

from tests.e2e.kube import Kube, config_map, pool, workload

pytestmark = [pytest.mark.node, pytest.mark.timeout(240)]

GUESTS = Path(__file__).parent / "guests"
ENDS = {
    "by itself": "(call $proc_exit (i32.const 0))",
    "by a trap": "unreachable",
    "by its deadline": "(loop $for_ever (br $for_ever))",
}


def _module(name: str, end: str = "") -> str:
    text = (GUESTS / f"{name}.wat").read_text()
    if end:
        assert text.count(ENDS["by itself"]) == 1
        text = text.replace(ENDS["by itself"], end)
    return base64.b64encode(wasmtime.wat2wasm(text)).decode()


@pytest.mark.parametrize("end", ENDS)
def test_next_tenant_of_a_slot_reads_only_zeros(kube: Kube, namespace: str, other_namespace: str, end: str) -> None:
    tenancy = {"allowedNamespaces": {"from": "All"}}
    kube.apply(pool("one", namespace, count=1, tenancy=tenancy))
    kube.until_condition("ipool", "one", namespace, "Ready", "True", seconds=120)

    kube.apply(
        config_map("secret", namespace, {"module": _module("fill_secret", ENDS[end])}),
        workload("secret", namespace, pool="one", config_map="secret", key="module", deadline="3s"),
    )
    kube.until_condition("wasm", "secret", namespace, "Finished", "True", seconds=60)
    (line,) = kube.guest_lines("one", namespace, "secret")
    assert line["message"] == "written"

    kube.apply(
        config_map("reader", other_namespace, {"module": _module("find_nonzero")}),
        workload("reader", other_namespace, pool="one", pool_namespace=namespace, config_map="reader", key="module"),
        *_consent(namespace, other_namespace),
    )
    kube.until_condition("wasm", "reader", other_namespace, "Finished", "True", seconds=60)
    (line,) = kube.guest_lines("one", namespace, "reader")
    assert line["message"] == "only zeros"
    assert line["namespace"] == other_namespace
    found = kube.get("wasm", "reader", other_namespace)
    assert found["status"]["instances"]["succeeded"] == 1


def test_namespace_that_the_pool_does_not_allow_is_refused(kube: Kube, namespace: str, other_namespace: str) -> None:
    kube.apply(pool("own", namespace, count=1))
    kube.until_condition("ipool", "own", namespace, "Ready", "True", seconds=120)
    kube.apply(
        config_map("reader", other_namespace, {"module": _module("find_nonzero")}),
        workload("reader", other_namespace, pool="own", pool_namespace=namespace, config_map="reader", key="module"),
    )
    refused = kube.until_condition("wasm", "reader", other_namespace, "Admitted", "False", "NamespaceNotAllowed")
    assert other_namespace in refused["message"]


def test_without_the_owners_consent_the_reason_names_the_role_binding(
    kube: Kube, namespace: str, other_namespace: str
) -> None:
    kube.apply(pool("one", namespace, count=1, tenancy={"allowedNamespaces": {"from": "All"}}))
    kube.until_condition("ipool", "one", namespace, "Ready", "True", seconds=120)
    kube.apply(
        config_map("reader", other_namespace, {"module": _module("find_nonzero")}),
        workload("reader", other_namespace, pool="one", pool_namespace=namespace, config_map="reader", key="module"),
    )

    def pull_failed(found: dict[str, object]) -> bool:
        return "wasmpool-module-reader" in str(found.get("status"))

    found = kube.until("wasm", "reader", other_namespace, pull_failed)
    assert "wasmpool-one" in str(found["status"])
    kube.apply(*_consent(namespace, other_namespace, pool_name="one"))
    kube.until_condition("wasm", "reader", other_namespace, "Finished", "True", seconds=120)


def _consent(pool_namespace: str, own_namespace: str, pool_name: str = "one") -> list[dict[str, object]]:
    return [
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "RoleBinding",
            "metadata": {"name": f"pool-{pool_name}-reads-modules", "namespace": own_namespace},
            "roleRef": {
                "apiGroup": "rbac.authorization.k8s.io",
                "kind": "ClusterRole",
                "name": "wasmpool-module-reader",
            },
            "subjects": [
                {"kind": "ServiceAccount", "name": f"wasmpool-{pool_name}", "namespace": pool_namespace},
            ],
        }
    ]
