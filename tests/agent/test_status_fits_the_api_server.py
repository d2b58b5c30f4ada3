"""A node's status against the limits of a real API server: its size, and what its schema takes.

Covers: as many entries as there can be, each as long as it can be, beside assignments with the longest names; what the
API server says of one that is too large; an entry that it refuses, which must not keep the others' news back.
"""

import asyncio
import copy
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
import yaml
from kubernetes.aio.client.api_client import ApiClient
from kubernetes.aio.client.configuration import Configuration
from kubernetes.aio.config import kube_config
from msgspec.structs import replace

from tests.agent.stage import NODE, POOL, Object, Stage, assignment, condition
from tests.cluster.client import Client
from tests.cluster.paths import ROOT
from tests.standalone.agent import prints
from wasmpool_agent.kube import KubeNode
from wasmpool_agent.status import Finding, build_status
from wasmpool_agent.status_budget import reductions
from wasmpool_agent.supervisor.ports import RefusedError
from wasmpool_api.codec import decode
from wasmpool_api.instance_pool_node import (
    AgentInfo,
    Assignment,
    InstancePoolNodeStatus,
    NodeWorkload,
    WorkloadState,
)
from wasmpool_api.wasm_workload import ModuleStatus

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(120)]

MOST = 1024
CRDS = ROOT / "crds" / "manifests"
AGENT = AgentInfo(pod_uid="pod-1", pod_name="wasmpool-small-x", version="0.1.0", wasmtime_version="50.0.1")
MODULE = decode(
    ModuleStatus,
    {
        "digest": "sha256:" + "a" * 64,
        "image": "registry.example.com/" + "i" * 1100 + "@sha256:" + "b" * 64,
        "sizeBytes": 2**28,
        "needs": {"types": 10**6, "functions": 10**6, "tableElements": 10**7, "features": ["simd", "threads"]},
    },
)


def uid(number: int) -> str:
    return f"{number:08d}-0000-0000-0000-000000000000"


def revision(number: int) -> str:
    return f"{number:040d}-c05ba9314b"


def longest_assignments(namespace: str) -> list[Assignment]:
    return [
        Assignment(
            uid=uid(number), namespace=namespace, name=f"{number:0253d}", revision=revision(number), slots=100_000,
            burst=100_000, priority=-(2**31), port=65535, outdated=True,
        )
        for number in range(MOST)
    ]  # fmt: skip


def entry(number: int, message: str = "") -> NodeWorkload:
    refused = number % 2 == 0
    return NodeWorkload(
        uid=uid(number),
        revision=revision(number),
        state=WorkloadState.REFUSED if refused else WorkloadState.BACK_OFF,
        reason="ExceedsModuleLimits" if refused else "BackOff",
        message=message,
        reserved_slots=100_000,
        used_slots=100_000,
        restarts=2**31 - 1,
        digest="sha256:" + "a" * 64,
        exit_code=-1,
    )


def status_of(entries: list[NodeWorkload]) -> InstancePoolNodeStatus:
    return build_status(
        before=None,
        generation=1,
        agent=AGENT,
        findings=[Finding("Ready", True, "AgentReady", "m" * 1024)],
        counts=None,
        shape=None,
        workloads=entries,
        now=datetime(2026, 1, 2, tzinfo=UTC),
    )


def publish(stage: Stage, status: InstancePoolNodeStatus) -> None:
    """As the agent does."""

    async def write() -> None:
        configuration = Configuration()
        kube: Any = kube_config  # it has no types
        await kube.load_kube_config(str(stage.kubeconfig), client_configuration=configuration, persist_config=False)
        async with ApiClient(configuration) as client:
            await KubeNode(client, stage.namespace, f"{POOL}.{NODE}", stage.cache).publish(status)

    asyncio.run(write())


@pytest.mark.parametrize(
    "letter", ["m", "<", "é", "😀", "\n"], ids=["ascii", "escaped by Go", "two bytes", "four bytes", "control"]
)
def test_as_many_entries_as_there_can_be_and_as_long_as_they_can_be_are_taken(stage: Stage, letter: str) -> None:
    stage.assign(*longest_assignments(stage.namespace))
    publish(stage, status_of([entry(number, letter * 1024) for number in range(MOST)]))
    stored = stage.status()["workloads"]
    assert len(stored) == MOST
    assert all(it["message"].endswith("...") for it in stored)


def test_modules_of_as_many_inspections_as_there_can_be_are_taken_and_the_last_ones_wait(stage: Stage) -> None:
    inspected = [
        NodeWorkload(
            uid=uid(number), revision=revision(number), state=WorkloadState.INSPECTED, reason="ModuleValid",
            message="m" * 1024, module=MODULE,
        )
        for number in range(MOST)
    ]  # fmt: skip
    stage.assign(*longest_assignments(stage.namespace))
    publish(stage, status_of(inspected))
    stored = stage.status()["workloads"]
    known = sum("module" in it for it in stored)
    assert 200 < known < MOST
    assert [("module" in it, it["state"]) for it in stored] == [
        *([(True, "Inspected")] * known),
        *([(False, "Pending")] * (MOST - known)),
    ]


@pytest.mark.filterwarnings("ignore:Sending a large body:ResourceWarning")
def test_a_status_that_is_too_large_is_refused_and_not_merely_late(stage: Stage) -> None:
    small = status_of([entry(number) for number in range(MOST)])
    for length in (2048, 4096):  # beyond what etcd takes, and beyond what the API server itself does
        large = replace(small, workloads=tuple(replace(it, message="m" * length) for it in small.workloads))
        with pytest.raises(RefusedError) as refusal:
            publish(stage, large)
        *_, least = reductions(large, refusal.value.entries)
        publish(stage, least)
        assert len(stage.status()["workloads"]) == MOST


def test_the_api_servers_answer_names_the_entries_that_it_does_not_take(stage: Stage) -> None:
    wrong = replace(MODULE, size_bytes=-1)
    status = status_of([replace(entry(number), module=wrong if number in {1, 3} else None) for number in range(5)])
    with pytest.raises(RefusedError) as refusal:
        publish(stage, status)
    assert refusal.value.entries == {1, 3}
    first, *_ = reductions(status, refusal.value.entries)
    publish(stage, first)
    assert [it.get("digest", "") for it in stage.status()["workloads"]] == [
        it.digest if index not in {1, 3} else "" for index, it in enumerate(status.workloads)
    ]


def test_a_modules_own_words_keep_no_others_news_back(stage: Stage) -> None:
    """They are in the message, and may be any text."""
    words = "😀 \u2028 \x85 \ufeff"
    stage.module("strange.wasm", f'(module (import "{words}" "f" (func)) (func (export "_start")))')
    strange = stage.revision("strange", "strange.wasm")
    stage.assign(assignment(strange, inspect=True))
    stage.start()
    assert "😀" in stage.until_state(strange, "Refused")["message"]


@pytest.fixture
def small_modules_only(admin: Client) -> Iterator[None]:
    """The kind as of another version, which takes modules of 1000 bytes at most."""
    path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/instancepoolnodes.wasmpool.dev"
    manifest: Object = yaml.safe_load((CRDS / "instancepoolnodes.yaml").read_text())
    other = copy.deepcopy(manifest)
    status = other["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["status"]["properties"]
    status["workloads"]["items"]["properties"]["module"]["properties"]["sizeBytes"]["maximum"] = 1000
    admin.apply(path, other)
    try:
        yield
    finally:
        admin.apply(path, manifest)


@pytest.mark.usefixtures("small_modules_only")
def test_an_entry_that_the_api_server_does_not_take_is_cut_and_keeps_no_others_news_back(stage: Stage) -> None:
    stage.module("large.wasm", f'(module (memory 1) (data (i32.const 0) "{"x" * 2000}") (func (export "_start")))')
    stage.module("hello.wasm", prints(), config_map="more")
    large = stage.revision("a-large", "large.wasm")
    hello = stage.revision("hello", "hello.wasm", config_map="more", restartPolicy="Never")
    stage.assign(assignment(large, inspect=True), assignment(hello, inspect=True))
    stage.start()
    stage.until_state(large, "Pending", "Inspecting")
    assert stage.until_state(hello, "Inspected")["module"]["sizeBytes"] < 1000
    stage.until(lambda: condition(stage.status(), "Ready").get("status") == "True")
    assert "module" not in stage.entry(large)
    stage.until(lambda: 'result="cut"' in stage.get("/metrics")[1])
    assert "status.workloads[0].module.sizeBytes" in stage.errors.read_text()
