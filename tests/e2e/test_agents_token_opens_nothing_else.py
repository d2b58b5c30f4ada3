"""What the token of a real agent's pod opens: its own node's object, and nothing else.

Covers: no Secret anywhere, by any verb, without consent; with consent the Secrets of that namespace, or the one that a
Role names; every write that is refused, with a real token of the API server's, bound to the agent's pod.
"""

from collections.abc import Iterator

import pytest

from tests.cluster.client import ApiError, Client
from tests.cluster.running import Running
from tests.e2e.kube import Kube, Object

pytestmark = [pytest.mark.node, pytest.mark.timeout(180)]

WASMPOOL = "/apis/wasmpool.dev/v1alpha1"
RBAC = "/apis/rbac.authorization.k8s.io/v1"


@pytest.fixture
def agent(cluster: Running, kube: Kube, small_pool: str) -> Iterator[Client]:
    """The API server as the agent of pool `small` sees it."""
    (pod,) = kube.all_of("pods", small_pool, "wasmpool.dev/pool=small")
    name: str = pod["metadata"]["name"]
    bound = ("--bound-object-kind", "Pod", "--bound-object-name", name)
    token = kube.kubectl("create", "token", "wasmpool-small", "-n", small_pool, *bound).strip()
    with cluster.client(token) as client:
        yield client


def code(client: Client, method: str, path: str, body: Object | None = None, **query: str) -> int:
    """Of the answer; 200 where it is not an error."""
    kind = "application/merge-patch+json" if method == "PATCH" else "application/json"
    try:
        client.call(method, path, body, query=query, content_type=kind)
    except ApiError as error:
        return error.code
    return 200


def secrets(namespace: str, name: str = "") -> str:
    """Their path."""
    return f"/api/v1/namespaces/{namespace}/secrets" + (f"/{name}" if name else "")


def secret(name: str, namespace: str) -> Object:
    """One whose content nobody needs."""
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "namespace": namespace}, "data": {}}


def binding(namespace: str, role: str, pool_namespace: str, kind: str = "ClusterRole") -> Object:
    """Consent, as the namespace's owner gives it to pool `small`."""
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "RoleBinding",
        "metadata": {"name": "consent", "namespace": namespace},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": role},
        "subjects": [{"kind": "ServiceAccount", "name": "wasmpool-small", "namespace": pool_namespace}],
    }


def test_no_secret_opens_without_consent_and_then_those_of_that_namespace_alone(
    kube: Kube, agent: Client, small_pool: str, other_namespace: str
) -> None:
    for namespace in (small_pool, other_namespace):
        kube.apply(secret("login", namespace), secret("other", namespace))
    everywhere = (small_pool, other_namespace, "wasmpool-system", "kube-system")
    for namespace in everywhere:
        assert code(agent, "GET", secrets(namespace, "login")) == 403
        assert code(agent, "GET", secrets(namespace)) == 403
        assert code(agent, "GET", secrets(namespace), watch="true", timeoutSeconds="1") == 403
    assert code(agent, "GET", "/api/v1/secrets") == 403

    kube.apply(binding(other_namespace, "wasmpool-secret-reader", small_pool))
    opened = [namespace for namespace in everywhere if code(agent, "GET", secrets(namespace, "login")) == 200]
    assert opened == [other_namespace]
    assert code(agent, "GET", secrets(other_namespace)) == 403, "whoever does not know its name does not get it"
    assert code(agent, "GET", secrets(other_namespace), watch="true", timeoutSeconds="1") == 403
    for method in ("PUT", "PATCH", "DELETE"):
        assert code(agent, method, secrets(other_namespace, "login"), secret("login", other_namespace)) == 403
    assert code(agent, "GET", f"/api/v1/namespaces/{other_namespace}/configmaps/kube-root-ca.crt") == 403

    kube.kubectl("delete", "rolebinding", "consent", "-n", other_namespace)
    assert code(agent, "GET", secrets(other_namespace, "login")) == 403


def test_a_role_that_names_one_secret_opens_that_one(kube: Kube, agent: Client, small_pool: str) -> None:
    """In the pool's own namespace too: its agents read no Secret there by themselves."""
    kube.apply(secret("login", small_pool), secret("other", small_pool))
    rule = {
        "apiGroups": [""],
        "resources": ["secrets"],
        "verbs": ["get"],
        "resourceNames": ["login"],
    }
    role: Object = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "Role",
        "metadata": {"name": "login", "namespace": small_pool},
        "rules": [rule],
    }
    kube.apply(role, binding(small_pool, "login", small_pool, kind="Role"))
    assert code(agent, "GET", secrets(small_pool, "login")) == 200
    assert code(agent, "GET", secrets(small_pool, "other")) == 403


def test_nothing_can_be_written_but_the_status_of_its_own_nodes_object(
    kube: Kube, agent: Client, small_pool: str, other_namespace: str
) -> None:
    (own,) = kube.all_of("ipnode", small_pool)
    name: str = own["metadata"]["name"]
    node: str = own["spec"]["nodeName"]
    core = f"/api/v1/namespaces/{small_pool}"
    revisions = f"/apis/apps/v1/namespaces/{small_pool}/controllerrevisions"
    nodes = f"{WASMPOOL}/namespaces/{small_pool}/instancepoolnodes"
    pools, workloads = (f"{WASMPOOL}/namespaces/{small_pool}/{kind}" for kind in ("instancepools", "wasmworkloads"))
    elsewhere = other_object(small_pool)
    kube.apply(elsewhere)
    try:
        status: Object = {"status": {"observedGeneration": own["metadata"]["generation"]}}
        assert code(agent, "PATCH", f"{nodes}/{name}/status", status) == 200
        refused: list[tuple[str, str, Object | None]] = [
            ("PATCH", f"{nodes}/small.elsewhere/status", status),
            ("PATCH", f"{nodes}/{name}", {"spec": {"poolGeneration": 99}}),
            ("PATCH", f"{nodes}/{name}", {"metadata": {"labels": {"x": "y"}}}),
            ("DELETE", f"{nodes}/{name}", None),
            ("POST", nodes, elsewhere),
            ("PATCH", f"{pools}/small", {"spec": {"admission": {"mode": "Count"}}}),
            ("PATCH", f"{pools}/small/status", status),
            ("DELETE", f"{pools}/small", None),
            ("POST", workloads, {"metadata": {"name": "x"}}),
            ("PATCH", f"{workloads}/x/status", status),
            ("POST", revisions, {"metadata": {"name": "x"}, "revision": 1}),
            ("POST", f"{core}/configmaps", {"metadata": {"name": "x"}}),
            ("PATCH", f"{core}/configmaps/kube-root-ca.crt", {"data": {"ca.crt": ""}}),
            ("POST", f"{core}/secrets", secret("x", small_pool)),
            ("POST", f"{core}/pods", {"metadata": {"name": "x"}, "spec": {"containers": []}}),
            ("DELETE", f"{core}/pods", None),
            ("POST", f"{core}/events", {"metadata": {"name": "x"}, "involvedObject": {}}),
            ("POST", f"{core}/serviceaccounts/wasmpool-small/token", {"spec": {"audiences": []}}),
            ("POST", f"{core}/serviceaccounts/default/token", {"spec": {"audiences": []}}),
            ("PATCH", f"/api/v1/nodes/{node}", {"spec": {"unschedulable": True}}),
            ("PATCH", f"/api/v1/nodes/{node}/status", {"status": {}}),
            ("POST", f"/apis/coordination.k8s.io/v1/namespaces/{small_pool}/leases", {"metadata": {"name": "x"}}),
            ("PATCH", "/apis/coordination.k8s.io/v1/namespaces/wasmpool-system/leases/wasmpool-operator", {"spec": {}}),
            ("POST", f"{RBAC}/namespaces/{small_pool}/rolebindings", binding(small_pool, "admin", small_pool)),
            (
                "POST",
                f"{RBAC}/namespaces/{other_namespace}/rolebindings",
                binding(other_namespace, "wasmpool-secret-reader", small_pool),
            ),
        ]
        written = [(method, path) for method, path, body in refused if code(agent, method, path, body) != 403]
        assert written == []
    finally:
        release = '{"metadata":{"finalizers":null}}'
        kube.kubectl("patch", "ipnode", "small.elsewhere", "-n", small_pool, "--type=merge", "-p", release)


def other_object(namespace: str) -> Object:
    """Of the same pool, on a node that is another one's."""
    return {
        "apiVersion": "wasmpool.dev/v1alpha1",
        "kind": "InstancePoolNode",
        # NB: the finalizer keeps it while the test looks: the operator removes the objects of nodes that are not there
        "metadata": {"name": "small.elsewhere", "namespace": namespace, "finalizers": ["wasmpool.dev/e2e"]},
        "spec": {
            "poolName": "small",
            "nodeName": "elsewhere",
            "nodeUID": "00000000-0000-0000-0000-000000000000",
            "poolGeneration": 1,
        },
    }
