"""Every reason that a workload or a region may have, met on a real node, with what is wanted and what is allowed.

All of it is applied at once, in five namespaces and four pools; each test then waits for one reason:

    main   16 slots, 25 % for one namespace, 1 for those of tier small    full   1 slot, which is taken
    going  is being deleted; somebody's finalizer keeps it                 nowhere   selects no node

Not here: ServiceConflict, which `test_http_on_a_real_node` meets; and ReserveFailed, for which the kernel would have to
refuse for another reason than that it has too few pages.
"""

import base64
import mmap
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Final

import pytest
import wasmtime
import yaml

from demo.guests import CONFIG_MAP
from tests.cluster import lifecycle, network
from tests.cluster.running import Running
from tests.e2e.conftest import namespace_of_its_own
from tests.e2e.kube import PAGE_BYTES, Kube, Object, condition, config_map, huge_pages_free, pool, workload
from wasmpool_api.codec import decode
from wasmpool_api.meta import POOL_LABEL, WORKLOAD_UID_LABEL
from wasmpool_api.reasons import PERMANENT
from wasmpool_api.revisions import revision_of
from wasmpool_api.wasm_workload import WasmWorkload

pytestmark = [pytest.mark.node, pytest.mark.timeout(240)]

REGISTRY_PORT: Final = 5999
MAP_HUGETLB: Final = 0x40000
SILENT: Final = """
import socket, time
server = socket.create_server(("", int(__import__("sys").argv[1])))
kept = []
while True:
    kept.append(server.accept())
"""
HOME, READER, SMALL, CLOSED, STRANGER = "home", "reader", "small", "closed", "stranger"
"""The pools' own; one that lets ConfigMaps be read; one with a quota; one without consent; one that is not allowed."""


@dataclass(frozen=True)
class Case:
    """`parts` of the message of the condition `kind` of one workload. {home} and so on are names of namespaces."""

    workload: str
    reason: str
    kind: str
    status: str
    parts: tuple[str, ...]
    namespace: str = HOME


CASES: Final = (
    Case(
        "too-big", "ExceedsModuleLimits", "Admitted", "False",
        ("memory 0 needs 512 pages, pool main allows 32",),
    ),
    Case(
        "greedy-module", "ExceedsModuleLimits", "Admitted", "False",
        ("tables: needs 2, pool main allows 1", "globals: needs 20, pool main allows 10"),
    ),
    Case(
        "own-limit", "ExceedsModuleLimits", "Admitted", "False",
        ("memory 0 needs 17 pages, the workload's limits.memoryPages allows 16",),
    ),
    Case(
        "many", "ExceedsPoolCapacity", "SlotsReserved", "False",
        ("17 slots wanted, 1 node of pool main can hold 16 for it; 0 reserved",),
    ),
    Case("broken", "ModuleInvalid", "ModuleValid", "False", ("127 bytes, 1 are left in the file (at offset 9)",)),
    Case("shared", "UnsupportedFeature", "Admitted", "False", ("SharedMemory, which wasmpool does not support",)),
    Case(
        "imports", "UnsupportedFeature", "Admitted", "False",
        ("the module imports env.launch (function), which this agent does not provide; allowed are the ",),
    ),
    Case(
        "stranger", "NamespaceNotAllowed", "Admitted", "False",
        ("{home}/main allows workloads of namespaces with labels wasmpool-e2e={home}", "namespace {stranger} has none"),
        STRANGER,
    ),
    Case(
        "newer", "AgentTooOld", "Admitted", "False",
        ("ControllerRevision newer-", "can't be read", "run.command.restartPolicy", "Sometimes"),
    ),
    Case(
        "waits", "WaitingForCapacity", "SlotsReserved", "False",
        ("1 more of 1 slot wanted, 0 free on 1 node of pool full",),
    ),
    Case("orphan", "PoolNotFound", "Admitted", "Unknown", ("there is no InstancePool {home}/absent",)),
    Case("early", "NoReadyNodes", "Admitted", "Unknown", ("pool {home}/nowhere has no ready node",)),
    Case(
        "no-config-map", "ModulePullFailed", "Admitted", "Unknown",
        ("module.configMap: there is no ConfigMap {home}/absent",),
    ),
    Case(
        "no-key", "ModulePullFailed", "Admitted", "Unknown",
        ("ConfigMap {home}/modules has no key absent.wasm; it has ",),
    ),
    Case(
        "no-consent", "ModulePullFailed", "Admitted", "Unknown",
        (
            "ConfigMap {closed}/modules may not be read by the agents of pool main",
            "make a RoleBinding in namespace {closed} of ClusterRole wasmpool-module-reader "
            "to ServiceAccount {home}/wasmpool-main",
        ),
        CLOSED,
    ),
    Case(
        "no-consent-to-secrets", "ModulePullFailed", "Ready", "False",
        (
            "run.command.env TOKEN: Secret {reader}/login may not be read by the agents of pool main",
            "make a RoleBinding in namespace {reader} of ClusterRole wasmpool-secret-reader "
            "to ServiceAccount {home}/wasmpool-main",
        ),
        READER,
    ),
    Case(
        "own-secret", "ModulePullFailed", "Admitted", "Unknown",
        (
            "module.imagePullSecrets login: Secret {home}/login may not be read by the agents of pool main",
            "make a RoleBinding in namespace {home} of ClusterRole wasmpool-secret-reader",
        ),
    ),
    Case(
        "share", "ShareExceeded", "SlotsReserved", "False",
        ("1 more of 5 slots wanted, namespace {home} holds 4 and may hold 4 (tenancy.maxShare 25% of 16 slots)",),
    ),
    Case(
        "quota", "ShareExceeded", "SlotsReserved", "False",
        (
            "1 more of 2 slots wanted, namespace {small} holds 1 and may hold 1 "
            "(tenancy.quotas, wasmpool-e2e-tier={home})",
        ),
        SMALL,
    ),
    Case("leaving", "PoolDraining", "Admitted", "Unknown", ("InstancePool {home}/going is being deleted",)),
    Case("silent", "Pulling", "Admitted", "Unknown", ("the module is being fetched",)),
)  # fmt: skip


@pytest.fixture(scope="module")
def namespaces(kube: Kube) -> Iterator[Mapping[str, str]]:
    """Five of the module's own."""
    with ExitStack() as made:
        found: dict[str, str] = {}
        for role in (HOME, READER, SMALL, CLOSED, STRANGER):
            found[role] = made.enter_context(namespace_of_its_own(kube, role))
        home = found[HOME]
        for role in (HOME, READER, SMALL, CLOSED):
            kube.kubectl("label", "namespace", found[role], f"wasmpool-e2e={home}")
        kube.kubectl("label", "namespace", found[SMALL], f"wasmpool-e2e-tier={home}")
        yield found


@pytest.fixture(scope="module")
def silent_registry(cluster: Running) -> Iterator[str]:
    """Takes connections and never says a word."""
    there = lifecycle.namespace(cluster, "control-plane")
    command = there.enter((sys.executable, "-c", SILENT, str(REGISTRY_PORT)), kinds="n")
    process = subprocess.Popen(command)
    yield f"{network.CONTROL_PLANE}:{REGISTRY_PORT}"
    process.kill()
    process.wait()


@pytest.fixture(scope="module")
def stage(kube: Kube, namespaces: Mapping[str, str], silent_registry: str) -> Iterator[Mapping[str, str]]:
    """Everything, applied."""
    home = namespaces[HOME]
    labels = {"matchLabels": {"wasmpool-e2e": home}}
    tier = {"matchLabels": {"wasmpool-e2e-tier": home}}
    tenancy = {
        "allowedNamespaces": {"from": "Selector", "selector": labels},
        "maxShare": "25%",
        "quotas": [{"namespaceSelector": tier, "slots": 1}],
    }
    _made_by_a_newer_operator(kube, home)
    registries = [{"host": silent_registry, "plainHTTP": True}]
    nowhere = {"wasmpool-e2e/no": "node"}
    going = pool("going", home, count=1, nodeSelector=nowhere)
    going["metadata"]["finalizers"] = ["wasmpool.dev/e2e"]
    kube.apply(
        pool("main", home, count=16, tenancy=tenancy, registries=registries),
        pool("full", home, count=1),
        pool("nowhere", home, count=1, nodeSelector=nowhere),
        going,
        *(config_map("modules", namespaces[role], _modules()) for role in (HOME, READER, SMALL, CLOSED)),
        *(_secret("login", namespaces[role]) for role in (HOME, READER)),
        *(_consent(namespaces[role], home) for role in (READER, SMALL)),
        _command("ticker", home, pool="full", restartPolicy="Always"),
    )
    try:
        kube.kubectl("delete", "ipool", "going", "-n", home, "--wait=false")
        for name in ("main", "full"):
            kube.until_condition("ipool", name, home, "Ready", "True", seconds=120)
        kube.until("wasm", "ticker", home, lambda found: _ready(found) == 1)
        kube.apply(*_workloads(namespaces, silent_registry))
        yield namespaces
    finally:
        release = '{"metadata":{"finalizers":null}}'
        kube.kubectl("patch", "ipool", "going", "-n", home, "--type=merge", "-p", release)


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.reason}-{case.workload}")
def test_a_workload_that_does_not_run_says_why_with_numbers(kube: Kube, stage: Mapping[str, str], case: Case) -> None:
    found = kube.until_condition("wasm", case.workload, stage[case.namespace], case.kind, case.status, case.reason)
    for part in case.parts:
        assert part.format(**stage) in found["message"]
    status = kube.get("wasm", case.workload, stage[case.namespace])["status"]
    stalled = condition({"status": status}, "Stalled")
    permanent = case.status == "False" and case.reason in PERMANENT
    assert stalled["status"] == ("True" if permanent else "False"), "it says whether waiting helps"


def test_a_workload_that_is_compiled_says_so(kube: Kube, stage: Mapping[str, str]) -> None:
    """Three large ones: one is compiled at a time, the others wait for their turn and say so."""
    names = [f"large-{number}" for number in range(3)]
    reader = stage[READER]
    kube.apply(
        *(config_map(name, reader, {"it.wasm": _large(number)}) for number, name in enumerate(names)),
        *(
            workload(name, reader, pool="main", pool_namespace=stage[HOME], config_map=name, key="it.wasm")
            for name in names
        ),
    )
    seen: set[bool] = set()
    while len(seen) < 2:
        ready = [condition(it, "Ready") for it in kube.all_of("wasm", reader) if it["metadata"]["name"] in names]
        assert not all(it.get("reason") == "Succeeded" for it in ready), seen
        compiling = [it["message"] for it in ready if it.get("reason") == "Compiling"]
        seen.update("modules before it" in message for message in compiling)
    for name in names:
        kube.until_condition("wasm", name, reader, "Finished", "True", seconds=120)


def test_regions_that_can_not_be_had_say_why_while_their_pods_are_pending(
    kube: Kube, namespace: str, node_huge_pages: int
) -> None:
    wanted = node_huge_pages + 1
    gigantic = pool("gigantic", namespace, count=1, allocation={"backing": "HugePages1Gi"})
    kube.apply(pool("large", namespace, count=wanted), gigantic, pool("base", namespace, count=1, allocation=_BASE))
    seen = _region(kube, "large", namespace, "False", "InsufficientHugePages")
    assert f"({wanted} pages)" in seen["message"]
    assert "of hugepages-2Mi allocatable" in seen["message"]
    seen = _region(kube, "gigantic", namespace, "False", "HugePagesNotConfigured")
    assert "has no hugepages-1Gi" in seen["message"]
    assert "pool gigantic needs 1Gi (1 pages)" in seen["message"]
    _region(kube, "base", namespace, "True", "BasePagesReserved")


_BASE: Final = {"backing": "BasePages"}


def test_pages_that_somebody_else_has_taken_fail_the_region_or_make_it_fall_back_by_choice(
    kube: Kube, namespace: str, node_huge_pages: int
) -> None:
    """The kubelet still counts them: only the kernel knows. It keeps them back for this mapping from now on."""
    with mmap.mmap(-1, (huge_pages_free() - 4) * PAGE_BYTES, flags=mmap.MAP_PRIVATE | MAP_HUGETLB):
        kube.apply(
            pool("fails", namespace, count=16),
            pool("falls", namespace, count=16, allocation={"fallback": "BasePages"}),
        )
        seen = _region(kube, "fails", namespace, "False", "InsufficientHugePages")
        free, total = 4, node_huge_pages
        assert f"16 pages of 2 MiB are wanted, {free} of the node's {total} are free" in seen["message"]
        _region(kube, "falls", namespace, "True", "FellBackToBasePages")
        degraded = kube.until_condition("ipool", "falls", namespace, "Degraded", "True", "FellBackToBasePages")
        assert "node-1" in degraded["message"]
    _region(kube, "fails", namespace, "True", "HugePagesReserved")


def _region(kube: Kube, name: str, namespace: str, status: str, reason: str) -> Object:
    return kube.until_condition("ipool", name, namespace, "RegionsReserved", status, reason, seconds=120)


def _workloads(namespaces: Mapping[str, str], registry: str) -> Iterator[Object]:
    home, reader, small, closed, stranger = (namespaces[it] for it in (HOME, READER, SMALL, CLOSED, STRANGER))
    for name in ("too-big", "greedy-module", "broken", "shared", "imports"):
        yield _command(name, home, key=f"{name}.wasm")
    lowered = _command("own-limit", home, key="seventeen.wasm")
    lowered["spec"]["limits"] = {"memoryPages": 16}
    yield lowered
    yield _command("many", home, instances=17)
    yield _command("stranger", stranger, home)
    yield _command("waits", home, pool="full")
    yield _command("orphan", home, pool="absent")
    yield _command("early", home, pool="nowhere")
    yield _command("leaving", home, pool="going")
    yield _command("no-config-map", home, config_map="absent")
    yield _command("no-key", home, key="absent.wasm")
    yield _command("no-consent", closed, home)
    login = {"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "login", "key": "token"}}}
    yield _command("no-consent-to-secrets", reader, home, env=[login])
    yield _command("share", home, instances=5, restartPolicy="Always")
    yield _command("quota", small, home, instances=2, restartPolicy="Always")
    private = _command("own-secret", home)
    private["spec"]["module"] = {"image": f"{registry}/acme/private:1", "imagePullSecrets": [{"name": "login"}]}
    yield private
    silent = _command("silent", home)
    silent["spec"]["module"] = {"image": f"{registry}/acme/silent:1"}
    yield silent


def _command(
    name: str,
    namespace: str,
    pool_namespace: str = "",
    *,
    pool: str = "main",
    key: str = "ticker.wasm",
    config_map: str = "modules",
    instances: int = 1,
    **command: object,
) -> Object:
    return workload(
        name, namespace, pool=pool, pool_namespace=pool_namespace, key=key, config_map=config_map,
        instances=instances, **command,
    )  # fmt: skip


def _made_by_a_newer_operator(kube: Kube, home: str) -> None:
    """A workload whose revision has a word that today's agents don't know. It waits for its pool meanwhile."""
    kube.apply(_command("newer", home))
    found = kube.get("wasm", "newer", home)
    revision = revision_of(decode(WasmWorkload, found))
    data = revision.to_data()
    data["run"]["command"]["restartPolicy"] = "Sometimes"
    labels = {POOL_LABEL: "main", WORKLOAD_UID_LABEL: found["metadata"]["uid"]}
    kube.apply(
        {
            "apiVersion": "apps/v1",
            "kind": "ControllerRevision",
            "metadata": {"name": revision.name, "namespace": home, "labels": labels},
            "data": data,
            "revision": 1,
        }
    )


def _modules() -> dict[str, str]:
    """Base64, by key."""
    examples: dict[str, str] = yaml.safe_load(CONFIG_MAP.read_text())["binaryData"]
    sources = {
        "greedy-module": f"{'(global i32 (i32.const 1))' * 20}{'(table 1 funcref)' * 2}",
        "seventeen": "(memory 17)",
        "shared": "(memory 1 1 shared)",
        "imports": '(import "env" "launch" (func))',
    }
    made = {f"{name}.wasm": _base64(f'(module {text} (func (export "_start")))') for name, text in sources.items()}
    broken = base64.b64encode(b"\0asm\x01\0\0\0\x01\x7f\x60").decode()
    taken = {name: examples[name] for name in ("ticker.wasm", "too-big.wasm")}
    return taken | made | {"broken.wasm": broken}


def _base64(text: str) -> str:
    return base64.b64encode(wasmtime.wat2wasm(text)).decode()


def _large(number: int) -> str:
    """Some 700 kB of code that is different for each number, with much to decide in it."""
    turn = "(block (br_if 0 (i32.load8_u (local.get 0))) (local.set 0 (i32.rem_u (local.get 0) (i32.const 7)))) "
    body = f"(local.set 0 (i32.add (local.get 0) (i32.const {number}))) " + turn * 105
    functions = "".join(f"(func (param i32) (result i32) {body} local.get 0)" for _ in range(400))
    return _base64(f'(module (memory 1) {functions} (func (export "_start")))')


def _secret(name: str, namespace: str) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name, "namespace": namespace},
        "stringData": {"token": "x"},
    }


def _consent(namespace: str, pool_namespace: str) -> Object:
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "RoleBinding",
        "metadata": {"name": "pool-main-reads-modules", "namespace": namespace},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "wasmpool-module-reader"},
        "subjects": [{"kind": "ServiceAccount", "name": "wasmpool-main", "namespace": pool_namespace}],
    }


def _ready(found: Object) -> int:
    number: int = found.get("status", {}).get("instances", {}).get("ready", 0)
    return number
