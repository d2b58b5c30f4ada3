"""What agents and the operator may write, asked of a real API server with real tokens.

RBAC lets an agent write the status of all InstancePoolNodes of its namespace, and the operator write ConfigMaps,
DaemonSets and RoleBindings anywhere. The chart's ValidatingAdmissionPolicies narrow both. Covered here:
- an agent (a token bound to its pod, as the kubelet gets it) writes its own node's status, and no other one's;
- the pool, the namespace, the pod and the spec are held as well; a token of no pod is nobody's;
- people and the operator are not hindered by the agents' policy;
- the operator writes what a wasmpool object controls, and neither other people's objects nor pods with privileges.
"""

import copy
import json
from collections.abc import Mapping
from typing import Any
from uuid import uuid4

import msgspec
import pytest

from tests.chart.conftest import CACHES, SYSTEM, pool, pool_node
from tests.chart.kube import Answer, Kubectl, Object
from wasmpool_api.codec import decode
from wasmpool_api.instance_pool import AgentTemplate, InstancePool, LocalObjectReference
from wasmpool_operator.pool.agent_pod import AgentSettings
from wasmpool_operator.pool.plan import agents_of

pytestmark = pytest.mark.cluster

# Without a controller manager a deleted namespace stays for ever: each run takes its own.
NAMESPACE = f"tenants-{uuid4().hex[:8]}"
OTHERS = f"others-{uuid4().hex[:8]}"


def agent_pod(pool_name: str, node: str, namespace: str) -> Object:
    """A pod of the pool's DaemonSet on a node; without a kubelet it stays a wish, and its tokens are real."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": f"wasmpool-{pool_name}-{node}", "namespace": namespace},
        "spec": {
            "serviceAccountName": f"wasmpool-{pool_name}",
            "nodeName": node,
            "containers": [{"name": "agent", "image": "wasmpool.dev/agent:dev"}],
        },
    }


def service_account(name: str, namespace: str) -> Object:
    return {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name, "namespace": namespace}}


def binding(name: str, namespace: str, role: str, account: str, account_namespace: str) -> Object:
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "RoleBinding",
        "metadata": {"name": name, "namespace": namespace},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
        "subjects": [{"kind": "ServiceAccount", "name": account, "namespace": account_namespace}],
    }


class Agents:
    """Two pools on two nodes, and the tokens of their agents."""

    def __init__(self, admin: Kubectl) -> None:
        self.admin = admin
        self.pods: dict[tuple[str, str], Object] = {}
        for namespace in (NAMESPACE, OTHERS):
            admin("create", "namespace", namespace).require()
        for pool_name in ("web", "batch"):
            admin.create(service_account(f"wasmpool-{pool_name}", NAMESPACE))
            for namespace in (NAMESPACE, OTHERS):
                # In its own namespace as the operator would bind it; in the other one by somebody's mistake.
                admin.create(
                    binding(f"wasmpool-{pool_name}", namespace, "wasmpool-agent", f"wasmpool-{pool_name}", NAMESPACE)
                )
                for node in ("node-a", "node-b"):
                    admin.create(pool_node(pool_name, node, namespace))
            for node in ("node-a", "node-b"):
                self.pods[pool_name, node] = admin.create(agent_pod(pool_name, node, NAMESPACE))

    def agent(self, pool_name: str, node: str) -> Kubectl:
        """kubectl with the token of the pool's agent on this node."""
        token = self.admin.token_for(f"wasmpool-{pool_name}", NAMESPACE, self.pods[pool_name, node])
        return self.admin.as_token(token)

    def uid(self, pool_name: str, node: str) -> str:
        uid: str = self.pods[pool_name, node]["metadata"]["uid"]
        return uid

    def remove(self) -> None:
        for namespace in (NAMESPACE, OTHERS):
            for kind in ("pods", "instancepoolnodes", "instancepools", "serviceaccounts", "rolebindings", "configmaps"):
                self.admin("delete", kind, "--all", "-n", namespace, "--force", "--grace-period=0")


@pytest.fixture(scope="module")
def agents(installed: Kubectl) -> Any:
    made = Agents(installed)
    yield made
    made.remove()


def status(pod_uid: str | None = None) -> Mapping[str, Any]:
    """A status that the schema takes."""
    about_itself = {"podUID": pod_uid, "podName": "wasmpool-web-x", "version": "0.1.0", "wasmtimeVersion": "50.0.1"}
    return {"observedGeneration": 1} | ({"agent": about_itself} if pod_uid else {})


def write_status(writer: Kubectl, name: str, content: Mapping[str, Any], namespace: str = NAMESPACE) -> Answer:
    """A merge patch of the status of one InstancePoolNode."""
    patch = json.dumps({"status": content})
    return writer(
        "patch", "instancepoolnode", name, "-n", namespace, "--subresource=status", "--type=merge", "-p", patch
    )


def test_an_agent_writes_the_status_of_its_own_node(agents: Agents) -> None:
    agent = agents.agent("web", "node-a")
    write_status(agent, "web.node-a", status(agents.uid("web", "node-a"))).require()
    stored = agents.admin.get("instancepoolnode", "web.node-a", "-n", NAMESPACE)
    assert stored["status"]["agent"]["podUID"] == agents.uid("web", "node-a")


def test_an_agent_may_apply_its_status_on_the_server(agents: Agents) -> None:
    applied = {
        "apiVersion": "wasmpool.dev/v1alpha1",
        "kind": "InstancePoolNode",
        "metadata": {"name": "web.node-a", "namespace": NAMESPACE},
        "status": status(agents.uid("web", "node-a")),
    }
    agents.agent("web", "node-a")(
        "apply", "--server-side", "--subresource=status", "--field-manager=wasmpool-agent", "--force-conflicts",
        "-f", "-", stdin=applied,
    ).require()  # fmt: skip


def test_an_agent_does_not_write_the_status_of_another_node(agents: Agents) -> None:
    answer = write_status(agents.agent("web", "node-a"), "web.node-b", status())
    assert "InstancePoolNode is of node node-b, the token of node node-a" in answer.refusal()


def test_an_agent_does_not_write_the_status_of_another_pool(agents: Agents) -> None:
    answer = write_status(agents.agent("batch", "node-a"), "web.node-a", status())
    refusal = answer.refusal()
    assert "InstancePoolNode is of pool web" in refusal
    assert "not by wasmpool-batch" in refusal


def test_an_agent_does_not_write_in_another_namespace_even_if_somebody_bound_its_role_there(agents: Agents) -> None:
    answer = write_status(agents.agent("web", "node-a"), "web.node-a", status(), namespace=OTHERS)
    assert f"is in namespace {OTHERS}, the agent wasmpool-web in {NAMESPACE}" in answer.refusal()


def test_an_agent_does_not_pose_as_another_pod(agents: Agents) -> None:
    answer = write_status(agents.agent("web", "node-a"), "web.node-a", status(agents.uid("web", "node-b")))
    refusal = answer.refusal()
    assert f"status.agent.podUID is {agents.uid('web', 'node-b')}" in refusal
    assert f"the token is of pod {agents.uid('web', 'node-a')}" in refusal


def test_a_token_that_is_bound_to_no_pod_writes_nothing(agents: Agents) -> None:
    unbound = agents.admin.as_token(agents.admin.token_for("wasmpool-web", NAMESPACE))
    answer = write_status(unbound, "web.node-a", status())
    assert "the token of no node (it is not bound to a pod)" in answer.refusal()


def test_an_agent_does_not_write_a_spec_even_if_rbac_would_let_it(agents: Agents) -> None:
    role = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRole",
        "metadata": {"name": "too-generous"},
        "rules": [{"apiGroups": ["wasmpool.dev"], "resources": ["instancepoolnodes"], "verbs": ["*"]}],
    }
    agents.admin.create(role)
    try:
        agents.admin.create(binding("too-generous", NAMESPACE, "too-generous", "wasmpool-web", NAMESPACE))
        agent = agents.agent("web", "node-a")
        patch = json.dumps({"spec": {"poolGeneration": 2}})
        answer = agent("patch", "instancepoolnode", "web.node-a", "-n", NAMESPACE, "--type=merge", "-p", patch)
        assert "an agent writes the status of an InstancePoolNode only" in answer.refusal()
        answer = agent("create", "-f", "-", stdin=pool_node("web", "node-c", NAMESPACE))
        assert "an agent writes the status of an InstancePoolNode only" in answer.refusal()
    finally:
        agents.admin("delete", "rolebinding", "too-generous", "-n", NAMESPACE).require()
        agents.admin("delete", "clusterrole", "too-generous").require()


def test_without_a_binding_of_the_role_rbac_refuses_first(agents: Agents) -> None:
    agents.admin.create(service_account("wasmpool-unbound", NAMESPACE))
    pod = agents.admin.create(agent_pod("unbound", "node-a", NAMESPACE))
    agents.admin.create(pool_node("unbound", "node-a", NAMESPACE))
    agent = agents.admin.as_token(agents.admin.token_for("wasmpool-unbound", NAMESPACE, pod))
    refusal = write_status(agent, "unbound.node-a", status()).refusal()
    assert 'cannot get resource "instancepoolnodes/status"' in refusal


def test_a_cluster_admin_is_not_hindered(agents: Agents) -> None:
    write_status(agents.admin, "batch.node-b", status("some-other-pod")).require()


def test_a_service_account_that_is_not_named_as_an_agent_is_held_by_rbac_alone(agents: Agents) -> None:
    agents.admin.create(service_account("migration", NAMESPACE))
    agents.admin.create(binding("migration", NAMESPACE, "wasmpool-agent", "migration", NAMESPACE))
    migration = agents.admin.as_token(agents.admin.token_for("migration", NAMESPACE))
    write_status(migration, "batch.node-a", status()).require()


def test_no_pool_in_the_operators_namespace_takes_the_operators_name(agents: Agents) -> None:
    refusal = agents.admin("create", "-f", "-", stdin=pool("operator", SYSTEM)).refusal()
    assert 'metadata.name "operator" is not allowed in namespace wasmpool-system' in refusal
    assert "wasmpool-operator" in refusal
    agents.admin.create(pool("operator", NAMESPACE))


@pytest.fixture(scope="module")
def operator(agents: Agents) -> Kubectl:
    return agents.admin.as_token(agents.admin.token_for("wasmpool-operator", SYSTEM))


@pytest.fixture(scope="module")
def owner(agents: Agents) -> Object:
    """The owner reference to a pool, as the operator writes it."""
    made = agents.admin.create(pool("web", NAMESPACE))
    return {
        "apiVersion": made["apiVersion"],
        "kind": made["kind"],
        "name": "web",
        "uid": made["metadata"]["uid"],
        "controller": True,
        "blockOwnerDeletion": True,
    }


def config_map(name: str, **metadata: Any) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": NAMESPACE, **metadata},
        "data": {"pool.yaml": "{}"},
    }


NO_ROOT = {"runAsNonRoot": True, "runAsUser": 65532, "seccompProfile": {"type": "RuntimeDefault"}}
HARDENED = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "runAsNonRoot": True,
    "capabilities": {"drop": ["ALL"]},
}


def daemon_set(
    owner: Object, pod: Mapping[str, Any] | None = None, container: Mapping[str, Any] | None = None
) -> Object:
    """What the operator makes, changed in the given fields of its pod and container."""
    labels = {"wasmpool.dev/pool": "web"}
    spec = {
        "serviceAccountName": "wasmpool-web",
        "securityContext": NO_ROOT,
        "containers": [
            {"name": "agent", "image": "wasmpool.dev/agent:dev", "securityContext": HARDENED, **(container or {})}
        ],
        **(pod or {}),
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": {"name": "wasmpool-web", "namespace": NAMESPACE, "ownerReferences": [owner]},
        "spec": {"selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels}, "spec": spec}},
    }


def test_the_operator_makes_changes_and_removes_what_a_pool_controls(operator: Kubectl, owner: Object) -> None:
    made = config_map("wasmpool-web-0123456789", ownerReferences=[owner])
    apply = ["apply", "--server-side", "--field-manager=wasmpool-operator", "-f", "-"]
    operator(*apply, stdin=made).require()
    made["data"]["more"] = "content"
    operator(*apply, stdin=made).require()
    operator("delete", "configmap", "wasmpool-web-0123456789", "-n", NAMESPACE).require()


def test_the_operator_makes_services_for_workloads_and_leaves_others_alone(agents: Agents, operator: Kubectl) -> None:
    workload: Object = {
        "apiVersion": "wasmpool.dev/v1alpha1",
        "kind": "WasmWorkload",
        "metadata": {"name": "front", "namespace": NAMESPACE},
        "spec": {"poolRef": {"name": "web"}, "module": {"image": "example.com/m:1"}, "run": {"http": {}}},
    }
    uid = agents.admin.create(workload)["metadata"]["uid"]
    owner = {"apiVersion": "wasmpool.dev/v1alpha1", "kind": "WasmWorkload", "name": "front", "uid": uid}
    service: Object = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "front", "namespace": NAMESPACE, "ownerReferences": [{**owner, "controller": True}]},
        "spec": {"ports": [{"port": 80, "targetPort": 20000}]},
    }
    endpoints: Object = {
        **service,
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "addressType": "IPv4",
        "endpoints": [{"addresses": ["10.0.0.1"]}],
    }
    del endpoints["spec"]
    apply = ["apply", "--server-side", "--field-manager=wasmpool-operator", "--force-conflicts", "-f", "-"]
    for made in (service, endpoints):
        operator(*apply, stdin=made).require()
        theirs = copy.deepcopy(made)
        theirs["metadata"] = {"name": "theirs", "namespace": NAMESPACE}
        agents.admin.create(theirs)
        taken = copy.deepcopy(made)
        taken["metadata"]["name"] = "theirs"
        assert "the operator changes and deletes its own objects only" in operator(*apply, stdin=taken).refusal()
        assert operator("delete", made["kind"].lower(), "theirs", "-n", NAMESPACE).refusal()
    refusal = operator("delete", "wasmworkload", "front", "-n", NAMESPACE).refusal()
    assert "the operator deletes workloads only that have finished and have spec.ttlSecondsAfterFinished" in refusal


def test_the_operator_binds_its_agents_role_and_no_other(operator: Kubectl, owner: Object) -> None:
    for role, refusal in (
        ("wasmpool-agent", ""),
        ("cluster-admin", "is attempting to grant RBAC permissions not currently held"),
        # NB: to RBAC this one is the operator's to give: it reads ConfigMaps itself.
        ("wasmpool-module-reader", "the operator binds ClusterRole wasmpool-agent only"),
        ("wasmpool-secret-reader", "is attempting to grant RBAC permissions not currently held"),
    ):
        wanted = binding(f"bind-{role}", NAMESPACE, role, "wasmpool-web", NAMESPACE)
        wanted["metadata"]["ownerReferences"] = [owner]
        answer = operator("create", "-f", "-", stdin=wanted)
        if refusal:
            assert refusal in answer.refusal()
        else:
            answer.require()


def test_the_operator_makes_nothing_that_no_pool_controls(operator: Kubectl) -> None:
    refusal = operator("create", "-f", "-", stdin=config_map("stray")).refusal()
    assert f"configmaps {NAMESPACE}/stray names none" in refusal


def test_the_operator_does_not_take_over_other_peoples_objects(
    agents: Agents, operator: Kubectl, owner: Object
) -> None:
    agents.admin.create(config_map("coredns"))
    taken = config_map("coredns", ownerReferences=[owner])
    apply = ["apply", "--server-side", "--force-conflicts", "--field-manager=wasmpool-operator", "-f", "-"]
    assert f"configmaps {NAMESPACE}/coredns was made by somebody else" in operator(*apply, stdin=taken).refusal()
    refusal = operator("delete", "configmap", "coredns", "-n", NAMESPACE).refusal()
    assert f"configmaps {NAMESPACE}/coredns was made by somebody else" in refusal


def test_the_operator_takes_back_its_own_object_that_lost_its_owner(
    agents: Agents, operator: Kubectl, owner: Object
) -> None:
    label = {"app.kubernetes.io/managed-by": "wasmpool-operator"}
    agents.admin.create(config_map("orphan", labels=label))
    apply = ["apply", "--server-side", "--force-conflicts", "--field-manager=wasmpool-operator", "-f", "-"]
    operator(*apply, stdin=config_map("orphan", labels=label, ownerReferences=[owner])).require()


def test_the_operator_deletes_agents_and_no_other_pods(agents: Agents, operator: Kubectl) -> None:
    agents.admin.create(service_account("app", NAMESPACE))
    theirs = agent_pod("app", "node-a", NAMESPACE)
    theirs["spec"]["serviceAccountName"] = "app"
    agents.admin.create(theirs)
    refusal = operator("delete", "pod", "wasmpool-app-node-a", "-n", NAMESPACE, "--wait=false").refusal()
    assert f"pods {NAMESPACE}/wasmpool-app-node-a was made by somebody else" in refusal
    ours = agent_pod("web", "node-z", NAMESPACE)
    ours["metadata"]["labels"] = {"app.kubernetes.io/managed-by": "wasmpool-operator"}
    agents.admin.create(ours)
    operator("delete", "pod", "wasmpool-web-node-z", "-n", NAMESPACE, "--wait=false").require()


def test_the_operator_makes_the_daemonset_of_a_pool(operator: Kubectl, owner: Object) -> None:
    operator("create", "--dry-run=server", "-f", "-", stdin=daemon_set(owner)).require()


def test_the_operator_makes_the_daemonset_as_it_makes_it_for_a_pool_with_everything(
    operator: Kubectl, owner: Object
) -> None:
    """With pull secrets, and a cache of the node."""
    cache = {"sizeLimit": "1Gi", "hostPath": CACHES}
    made = decode(InstancePool, pool("web", NAMESPACE))
    spec = msgspec.structs.replace(
        made.spec,
        image_pull_secrets=(LocalObjectReference("acme"), LocalObjectReference("more")),
        agent=decode(AgentTemplate, {"cache": cache}),
    )
    metadata = msgspec.structs.replace(made.metadata, uid=owner["uid"])
    agents = agents_of(msgspec.structs.replace(made, spec=spec, metadata=metadata), AgentSettings("agent:dev"))
    operator("create", "--dry-run=server", "-f", "-", stdin=agents.children[-1]).require()


def host_path(path: str, name: str = "cache", kind: str = "Directory") -> Mapping[str, Any]:
    return volume(name, hostPath={"path": path, "type": kind})


def volume(name: str = "stolen", **source: Any) -> Mapping[str, Any]:
    return {"volumes": [{"name": name, **source}]}


def variable(**source: Any) -> Mapping[str, Any]:
    return {"env": [{"name": "STOLEN", "valueFrom": source}]}


def projected(**source: Any) -> Mapping[str, Any]:
    return volume(projected={"sources": [source]})


def pod_context(**fields: Any) -> Mapping[str, Any]:
    return {"securityContext": {**NO_ROOT, **fields}}


def context(**fields: Any) -> Mapping[str, Any]:
    return {"securityContext": {**HARDENED, **fields}}


def probe(**fields: Any) -> Mapping[str, Any]:
    return {"livenessProbe": fields}


OWN = f"{CACHES}/{NAMESPACE}.web"
NODE = f"agents mount nothing of their node (no hostPath volumes) but <agent.cache.hostPath>/{NAMESPACE}.web"
KINDS = "agents have volumes of the kinds configMap, emptyDir, projected and hostPath only; of another kind: stolen"
SECRETS = "agents mount of Secrets only the key .dockerconfigjson"
ENVIRONMENT = "agents take their environment from their own pod only"
ROOT = "agents are not root"
PRIVILEGES = "agents have no privileges"
PROFILES = "agents run under the runtime's own profiles"
PROBES = "agents are probed at their own address only"
ONE_CONTAINER = "an agent's pod has one container"
HOST = "agents share no namespace with their node"
CLAIM = {"claimName": "data"}
ANOTHER_KEY = {"secret": {"name": "db", "items": [{"key": "password", "path": "p"}]}}
ANOTHER_AUDIENCE = {"serviceAccountToken": {"audience": "vault", "path": "token"}}


@pytest.mark.parametrize(
    ("pod", "container", "complaint"),
    [
        ({"hostNetwork": True}, {}, HOST),
        ({"hostPID": True}, {}, HOST),
        ({"hostIPC": True}, {}, HOST),
        (volume("root", hostPath={"path": "/"}), {}, NODE),
        (host_path("/"), {}, NODE),
        (host_path("/var/cache"), {}, NODE),
        (host_path(CACHES), {}, NODE),
        (host_path(f"{CACHES}/others.web"), {}, NODE),
        (host_path(f"{CACHES}/{NAMESPACE}.batch"), {}, NODE),
        (host_path(f"{OWN}/link"), {}, f"agent.cacheHostPaths of the chart: {CACHES}"),
        (host_path(f"{CACHES}-not/{NAMESPACE}.web"), {}, NODE),
        (host_path(OWN, name="root"), {}, NODE),
        (host_path(OWN, kind="DirectoryOrCreate"), {}, NODE),
        (host_path(f"{OWN}/../../.."), {}, "must not contain '..'"),
        (volume(secret={"secretName": "db"}), {}, KINDS),
        (volume(persistentVolumeClaim=CLAIM), {}, KINDS),
        (volume(csi={"driver": "secrets-store.csi.k8s.io"}), {}, KINDS),
        (volume(nfs={"server": "10.0.0.1", "path": "/"}), {}, KINDS),
        (volume(iscsi={"targetPortal": "10.0.0.1", "iqn": "iqn.2026-01.a:b", "lun": 0}), {}, KINDS),
        (volume(downwardAPI={"items": []}), {}, KINDS),
        (volume(image={"reference": "example.com/a:1"}), {}, KINDS),
        (volume(configMap={"name": "others"}), {}, "agents mount only the ConfigMaps that the operator made"),
        (projected(secret={"name": "db"}), {}, SECRETS),
        (projected(**ANOTHER_KEY), {}, SECRETS),
        (projected(**ANOTHER_AUDIENCE), {}, SECRETS),
        (projected(configMap={"name": "others"}), {}, SECRETS),
        ({}, variable(secretKeyRef={"name": "db", "key": "password"}), ENVIRONMENT),
        ({}, variable(configMapKeyRef={"name": "db", "key": "host"}), ENVIRONMENT),
        ({}, {"envFrom": [{"secretRef": {"name": "db"}}]}, ENVIRONMENT),
        ({}, {"envFrom": [{"configMapRef": {"name": "db"}}]}, ENVIRONMENT),
        ({}, {"ports": [{"containerPort": 80, "hostPort": 80}]}, "agents listen on their pod's address only"),
        ({"serviceAccountName": "default"}, {}, "agents run as the service account that is named as their DaemonSet"),
        ({"securityContext": {}}, {}, ROOT),
        (pod_context(runAsNonRoot=False), {}, ROOT),
        (pod_context(runAsUser=0), {}, ROOT),
        (pod_context(runAsGroup=0), {}, ROOT),
        (pod_context(supplementalGroups=[0]), {}, ROOT),
        ({}, context(runAsUser=0), ROOT),
        ({}, context(runAsGroup=0), ROOT),
        ({}, context(runAsNonRoot=False), ROOT),
        ({}, {"securityContext": {"runAsNonRoot": True, "privileged": True}}, PRIVILEGES),
        ({}, {"securityContext": {"runAsNonRoot": True}}, PRIVILEGES),
        ({}, context(capabilities={"drop": ["ALL"], "add": ["SYS_ADMIN"]}), PRIVILEGES),
        (pod_context(seccompProfile={"type": "Unconfined"}), {}, PROFILES),
        (pod_context(sysctls=[{"name": "net.ipv4.ip_local_port_range", "value": "1024 65535"}]), {}, PROFILES),
        (pod_context(seLinuxOptions={"type": "spc_t"}), {}, PROFILES),
        (pod_context(appArmorProfile={"type": "Unconfined"}), {}, PROFILES),
        ({}, context(seccompProfile={"type": "Unconfined"}), PROFILES),
        ({}, context(appArmorProfile={"type": "Unconfined"}), PROFILES),
        ({}, probe(httpGet={"host": "127.0.0.1", "port": 10248}), PROBES),
        ({}, probe(tcpSocket={"port": 10248}), PROBES),
        ({}, {"lifecycle": {"postStart": {"httpGet": {"host": "127.0.0.1", "port": 10248}}}}, PROBES),
        ({"initContainers": [{"name": "first", "image": "x", "securityContext": HARDENED}]}, {}, ONE_CONTAINER),
        ({"containers": [{"name": n, "image": "x", "securityContext": HARDENED} for n in "ab"]}, {}, ONE_CONTAINER),
        ({"runtimeClassName": "other"}, {}, "agents have no runtimeClassName"),
        ({"nodeName": "node-a"}, {}, "agents have no runtimeClassName, nodeName"),
    ],
)
def test_the_operator_gives_no_pod_power_over_its_node(
    operator: Kubectl, owner: Object, pod: Mapping[str, Any], container: Mapping[str, Any], complaint: str
) -> None:
    answer = operator("create", "--dry-run=server", "-f", "-", stdin=daemon_set(owner, pod, container))
    assert complaint in answer.refusal()


def test_a_service_account_of_somebody_else_is_not_had_by_taking_its_name(operator: Kubectl, owner: Object) -> None:
    named = daemon_set(owner, {"serviceAccountName": "builder"})
    named["metadata"]["name"] = "builder"
    answer = operator("create", "--dry-run=server", "-f", "-", stdin=named)
    assert "wasmpool-<pool>, not builder" in answer.refusal()


@pytest.mark.parametrize(
    ("pod", "container"),
    [
        (host_path(OWN), {}),
        (volume("tmp", emptyDir={}), {}),
        ({}, {"ports": [{"name": "http", "containerPort": 20000}]}),
        ({}, variable(fieldRef={"fieldPath": "status.podIP"})),
        ({}, variable(resourceFieldRef={"resource": "limits.cpu"})),
    ],
)
def test_the_operator_gives_agents_what_is_their_own(
    operator: Kubectl, owner: Object, pod: Mapping[str, Any], container: Mapping[str, Any]
) -> None:
    operator("create", "--dry-run=server", "-f", "-", stdin=daemon_set(owner, pod, container)).require()


@pytest.mark.parametrize("verb", ["get", "list", "watch", "create", "update", "patch", "delete"])
@pytest.mark.parametrize("namespace", [SYSTEM, NAMESPACE])
def test_the_operator_has_no_access_to_secrets(operator: Kubectl, verb: str, namespace: str) -> None:
    assert operator("auth", "can-i", verb, "secrets", "-n", namespace).out.strip() == "no"


def test_the_operator_does_not_write_the_status_of_agents(operator: Kubectl) -> None:
    for verb in ("patch", "update"):
        question = ["auth", "can-i", verb, "instancepoolnodes.wasmpool.dev", "--subresource=status", "-n", NAMESPACE]
        assert operator(*question).out.strip() == "no"


def test_an_agent_reads_what_it_needs_in_its_own_namespace_only(agents: Agents) -> None:
    agent = agents.agent("web", "node-a")
    can = ["auth", "can-i"]
    for question in (
        ("get", "configmaps"),
        ("get", "controllerrevisions.apps"),
        ("watch", "instancepoolnodes.wasmpool.dev"),
    ):
        assert agent(*can, *question, "-n", NAMESPACE).out.strip() == "yes"
        assert agent(*can, *question, "-n", SYSTEM).out.strip() == "no"
    for question in (
        ("list", "configmaps"),
        ("get", "secrets"),
        ("get", "pods"),
        ("create", "pods"),
        ("update", "nodes"),
    ):
        assert agent(*can, *question, "-n", NAMESPACE).out.strip() == "no"
