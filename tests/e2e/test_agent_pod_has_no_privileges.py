"""What an agent's pod may do on its node and to the API: as little as its work needs.

Covers: uid, capabilities, seccomp and no_new_privs of every process of the agent, from /proc; the read-only root; the
limit on huge pages; what its token may and may not write.
"""

import json
from pathlib import Path

import pytest

from tests.e2e.kube import PAGE_BYTES, Kube, KubectlError, Object

pytestmark = [pytest.mark.node, pytest.mark.timeout(180)]


PATCH_STATUS = """
import json, ssl, sys, urllib.error, urllib.request
base = "/var/run/secrets/kubernetes.io/serviceaccount/"
request = urllib.request.Request(
    sys.argv[1],
    method="PATCH",
    data=json.dumps({"status": {"observedGeneration": 1}}).encode(),
    headers={"Authorization": "Bearer " + open(base + "token").read(), "Content-Type": "application/merge-patch+json"},
)
try:
    urllib.request.urlopen(request, context=ssl.create_default_context(cafile=base + "ca.crt"))
except urllib.error.HTTPError as error:
    print(error.code, error.read().decode())
else:
    print("written")
"""


def _processes_of(pod: Object) -> list[dict[str, str]]:
    """/proc/PID/status and command line of every process of the agent in the pod."""
    uid: str = pod["metadata"]["uid"]
    found: list[dict[str, str]] = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            status = (entry / "status").read_text()
            cgroup = (entry / "cgroup").read_text()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if f"pod{uid}" in cgroup and "wasmpool" in command:
            fields = {name: value for name, _, value in (line.partition(":\t") for line in status.splitlines())}
            found.append(fields | {"command": command})
    return found


def _agent_pod(kube: Kube, namespace: str) -> Object:
    (pod,) = kube.all_of("pods", namespace, "wasmpool.dev/pool=small")
    return pod


def test_no_process_of_the_agent_has_privileges(kube: Kube, small_pool: str) -> None:
    processes = _processes_of(_agent_pod(kube, small_pool))
    assert len(processes) >= 2, "a supervisor and at least one worker were expected"
    for process in processes:
        uids = set(process["Uid"].split())
        assert uids == {"65532"}, process["command"]
        for capabilities in ("CapEff", "CapPrm", "CapInh", "CapBnd", "CapAmb"):
            assert int(process[capabilities], 16) == 0, (capabilities, process["command"])
        assert process["NoNewPrivs"].strip() == "1"
        assert process["Seccomp"].strip() == "2"


def test_root_of_the_container_is_read_only(kube: Kube, small_pool: str) -> None:
    pod = _agent_pod(kube, small_pool)
    with pytest.raises(KubectlError, match=r"[Rr]ead-only file system"):
        kube.kubectl(
            "exec", "-n", small_pool, pod["metadata"]["name"], "-c", "agent", "--", "python3", "-c", "open('/x', 'w')"
        )


def test_huge_pages_of_the_pod_are_the_region_and_no_more(kube: Kube, small_pool: str) -> None:
    (container,) = _agent_pod(kube, small_pool)["spec"]["containers"]
    assert container["resources"]["limits"]["hugepages-2Mi"] == f"{8 * PAGE_BYTES // 2**20}Mi"
    assert container["resources"]["requests"]["hugepages-2Mi"] == f"{8 * PAGE_BYTES // 2**20}Mi"


def test_agents_token_writes_the_status_of_its_own_node_and_nothing_else(kube: Kube, small_pool: str) -> None:
    account = f"system:serviceaccount:{small_pool}:wasmpool-small"
    for verb, resource, allowed in (
        ("patch", "instancepoolnodes/status", True),
        ("patch", "instancepoolnodes", False),
        ("get", "secrets", False),
        ("create", "pods", False),
        ("patch", "instancepools/status", False),
        ("patch", "wasmworkloads/status", False),
    ):
        kind, _, subresource = resource.partition("/")
        asked = ["auth", "can-i", verb, kind, f"--subresource={subresource}", "-n", small_pool, f"--as={account}"]
        try:
            answer = kube.kubectl(*asked).strip()
        except KubectlError:  # can-i leaves with 1 for "no"
            answer = "no"
        assert (answer == "yes") is allowed, (verb, resource)


def test_agents_token_cant_write_another_nodes_object(kube: Kube, small_pool: str) -> None:
    other: Object = {
        "apiVersion": "wasmpool.dev/v1alpha1",
        "kind": "InstancePoolNode",
        # NB: the finalizer keeps it while the test looks: the operator removes the objects of nodes that are not there
        "metadata": {"name": "small.elsewhere", "namespace": small_pool, "finalizers": ["wasmpool.dev/e2e"]},
        "spec": {
            "poolName": "small",
            "nodeName": "elsewhere",
            "nodeUID": "00000000-0000-0000-0000-000000000000",
            "poolGeneration": 1,
        },
    }
    kube.apply(other)
    try:
        pod = _agent_pod(kube, small_pool)
        path = f"/apis/wasmpool.dev/v1alpha1/namespaces/{small_pool}/instancepoolnodes/small.elsewhere/status"
        service = kube.get("service", "kubernetes", "default")["spec"]
        url = f"https://{service['clusterIP']}:{service['ports'][0]['port']}{path}"
        answer = kube.kubectl(
            "exec", "-n", small_pool, pod["metadata"]["name"], "-c", "agent", "--", "python3", "-c", PATCH_STATUS, url
        )
    finally:
        release = '{"metadata":{"finalizers":null}}'
        kube.kubectl("patch", "ipnode", "small.elsewhere", "-n", small_pool, "--type=merge", "-p", release)
    code, _, body = answer.partition(" ")
    assert code in {"403", "422"}, answer
    assert "ValidatingAdmissionPolicy" in json.loads(body)["message"], answer
