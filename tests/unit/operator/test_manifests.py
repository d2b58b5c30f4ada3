"""The objects of a pool's agents: what they ask for, and what an edit of the pool changes in them."""

from typing import Any

import pytest

from tests.unit.operator.builders import pool
from wasmpool_api.instance_pool import InstancePool
from wasmpool_api.quantities import Quantity
from wasmpool_api.region import RegionError, overhead_bytes_per_node, region_shape
from wasmpool_operator.pool.manifests import AGENT_BASE_MEMORY, AgentSettings, template_of
from wasmpool_operator.pool.plan import agents_of

SETTINGS = AgentSettings(image="agent:dev")


def agent(found: InstancePool) -> dict[str, Any]:
    daemon_set = agents_of(found, SETTINGS).children[-1]
    container: dict[str, Any] = daemon_set["spec"]["template"]["spec"]["containers"][0]
    return container


def test_huge_pages_are_requested_for_the_whole_region_and_not_from_ordinary_memory() -> None:
    found = pool()
    shape = region_shape(found.spec)
    resources = agent(found)["resources"]
    assert resources["requests"]["hugepages-2Mi"] == resources["limits"]["hugepages-2Mi"] == "8Mi"
    memory = AGENT_BASE_MEMORY + overhead_bytes_per_node(found.spec, shape)
    assert Quantity.parse(resources["requests"]["memory"]) == memory


def test_base_pages_count_the_region_in_ordinary_memory() -> None:
    found = pool(allocation={"backing": "BasePages"})
    shape = region_shape(found.spec)
    resources = agent(found)["resources"]
    assert "hugepages-2Mi" not in resources["limits"]
    memory = AGENT_BASE_MEMORY + overhead_bytes_per_node(found.spec, shape) + shape.region_bytes
    assert Quantity.parse(resources["limits"]["memory"]) == memory


def test_the_owners_memory_replaces_the_base_and_cpu_is_taken_as_it_is() -> None:
    given = {"requests": {"memory": "1Gi", "cpu": "2"}, "limits": {"memory": "2Gi", "hugepages-2Mi": "2Mi"}}
    found = pool(agent={"resources": given})
    on_top = overhead_bytes_per_node(found.spec, region_shape(found.spec))
    resources = agent(found)["resources"]
    assert resources["requests"]["cpu"] == "2"
    assert Quantity.parse(resources["requests"]["memory"]) == 2**30 + on_top
    assert Quantity.parse(resources["limits"]["memory"]) == 2**31 + on_top
    assert resources["limits"]["hugepages-2Mi"] == "8Mi"


@pytest.mark.parametrize("kind", ["limits", "requests"])
@pytest.mark.parametrize("memory", ["10E", "0.5", "much", "9223372036854775807"])
def test_memory_that_no_machine_has_is_refused_by_its_field(kind: str, memory: str) -> None:
    with pytest.raises(RegionError) as refused:
        agents_of(pool(agent={"resources": {kind: {"memory": memory}}}), SETTINGS)
    assert refused.value.path == f"spec.agent.resources.{kind}.memory"
    assert f"{memory} is given; allowed is a whole number of bytes from 0 to 92233720" in str(refused.value)


def test_the_agent_has_no_privilege() -> None:
    found = agent(pool())
    security = found["securityContext"]
    assert security["capabilities"] == {"drop": ["ALL"]}
    assert (security["runAsNonRoot"], security["readOnlyRootFilesystem"]) == (True, True)
    assert (security["allowPrivilegeEscalation"], security["privileged"]) == (False, False)


@pytest.mark.parametrize(
    ("change", "replaced"),
    [
        ({"moduleLimits": {"memoryPages": 64}}, True),
        ({"runtime": {"workers": 2}}, True),
        ({"tenancy": {"isolation": "WorkerPerNamespace"}}, True),
        ({"agent": {"image": "other"}}, True),
        ({"tenancy": {"maxShare": "50%"}}, False),
        ({"tenancy": {"allowedNamespaces": {"from": "All"}}}, False),
        ({"updateStrategy": {"maxUnavailable": 3}}, False),
    ],
)
def test_only_what_an_agent_acts_on_replaces_agents(change: dict[str, Any], replaced: bool) -> None:
    before = template_of(agents_of(pool(), SETTINGS).children[-1])
    after = template_of(agents_of(pool(**change), SETTINGS).children[-1])
    assert (before != after) is replaced
