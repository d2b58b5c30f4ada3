"""The objects of a pool's agents: what they ask for, and what an edit of the pool changes in them."""

import json
from typing import Any

import pytest

from tests.unit.operator.builders import node, pool
from wasmpool_api.codec import decode
from wasmpool_api.instance_pool import InstancePool, InstancePoolSpec
from wasmpool_api.quantities import Quantity
from wasmpool_api.region import RegionError, overhead_bytes_per_node, region_shape
from wasmpool_operator.pool.agent_pod import AGENT_BASE_MEMORY, AgentSettings
from wasmpool_operator.pool.manifests import config_map, pool_node, template_of
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


def pod_of(found: InstancePool) -> dict[str, Any]:
    daemon_set = agents_of(found, SETTINGS).children[-1]
    spec: dict[str, Any] = daemon_set["spec"]["template"]["spec"]
    return spec


def config_of(found: InstancePool) -> dict[str, Any]:
    config: dict[str, Any] = json.loads(config_map(found)["data"]["pool.yaml"])["spec"]
    return config


def volume(found: InstancePool, name: str) -> dict[str, Any] | None:
    return next((it for it in pod_of(found)["volumes"] if it["name"] == name), None)


def test_the_agents_file_has_of_the_limits_what_a_slot_is_cut_for() -> None:
    config = config_of(pool())
    assert config["moduleLimits"] == {"memories": 1, "memoryPages": 32}
    assert not {"componentLimits", "admission", "registries", "agent"} & config.keys()
    decode(InstancePoolSpec, config)


@pytest.mark.parametrize("allocation", [{"backing": "BasePages"}, {"fallback": "BasePages"}])
def test_on_base_pages_it_has_what_wasmtimes_pool_sets_aside(allocation: dict[str, str]) -> None:
    config = config_of(pool(allocation=allocation))
    assert config["moduleLimits"] == {"memories": 1, "memoryPages": 32, "tables": 1, "tableElements": 10000}
    assert config["componentLimits"] == {"coreInstances": 30, "memories": 1, "tables": 20}


def test_the_agents_file_says_where_modules_come_from_and_where_they_are_kept() -> None:
    registries = [{"host": "registry.internal:5000", "plainHTTP": True}]
    config = config_of(pool(registries=registries, agent={"cache": {"sizeLimit": "1Gi"}, "image": "other"}))
    assert config["registries"] == registries
    assert config["agent"] == {"cache": {"sizeLimit": "1Gi"}}


def test_the_pools_pull_secrets_are_projected_for_its_modules() -> None:
    assert volume(pool(), "pull-secrets") is None
    found = pool(imagePullSecrets=[{"name": "acme"}, {"name": "ghcr.io"}])
    assert volume(found, "pull-secrets") == {
        "name": "pull-secrets",
        "projected": {
            "defaultMode": 0o440,
            "sources": [
                {
                    "secret": {
                        "name": name,
                        "optional": True,
                        "items": [{"key": ".dockerconfigjson", "path": f"{name}/.dockerconfigjson"}],
                    }
                }
                for name in ("acme", "ghcr.io")
            ],
        },
    }
    mount = {"name": "pull-secrets", "mountPath": "/etc/wasmpool-pull-secrets", "readOnly": True}
    assert mount in agent(found)["volumeMounts"]
    assert mount not in agent(pool())["volumeMounts"]


def test_the_kubelets_bound_of_the_cache_is_above_the_agents_own() -> None:
    kept = volume(pool(agent={"cache": {"sizeLimit": "4Gi"}}), "cache")
    assert kept == {"name": "cache", "emptyDir": {"sizeLimit": "6Gi"}}


def test_a_cache_of_the_node_is_the_pools_own_directory_and_is_there() -> None:
    kept = volume(pool(agent={"cache": {"hostPath": "/srv/cache"}}), "cache")
    assert kept == {"name": "cache", "hostPath": {"path": "/srv/cache/team.web", "type": "Directory"}}


def test_the_cache_is_mounted_where_the_agent_of_this_pool_looks_for_it() -> None:
    for found in (pool(), pool(agent={"cache": {"hostPath": "/srv/cache"}})):
        (mount,) = [it for it in agent(found)["volumeMounts"] if it["name"] == "cache"]
        assert mount["mountPath"] == "/var/cache/wasmpool/team.web"


def test_a_nodes_object_has_all_limits_from_the_start() -> None:
    found = pool(moduleLimits={"functions": 7}, admission={"mode": "Count"})
    admission = pool_node(found, node())["spec"]["admission"]
    assert admission["mode"] == "Count"
    assert admission["moduleLimits"]["functions"] == 7
    assert admission["componentLimits"] == {"coreInstances": 30, "memories": 1, "tables": 20}


def test_limits_that_replace_no_agent_are_counted_in_the_memory_of_those_to_come() -> None:
    before, after = (agent(pool(moduleLimits={"memoryPages": 32, "functions": it})) for it in (10000, 20000))
    memory = [Quantity.parse(it["resources"]["limits"]["memory"]) for it in (before, after)]
    assert memory[1] - memory[0] == 4 * 10000 * 32


BASE_PAGES = {"allocation": {"backing": "BasePages"}}


@pytest.mark.parametrize(
    ("change", "replaced"),
    [
        ({"moduleLimits": {"memoryPages": 32, "functions": 20000}}, False),
        ({"moduleLimits": {"memoryPages": 32, "types": 200, "globals": 20, "importedFunctions": 1}}, False),
        ({"moduleLimits": {"memoryPages": 32, "tables": 2, "tableElements": 20000}}, False),
        ({"componentLimits": {"coreInstances": 100, "memories": 2, "tables": 30}}, False),
        ({"admission": {"mode": "Count"}}, False),
        ({"moduleLimits": {"memoryPages": 32, "memories": 2}}, True),
        ({"registries": [{"host": "example.com", "plainHTTP": True}]}, True),
        ({"agent": {"cache": {"sizeLimit": "1Gi"}}}, True),
        ({"imagePullSecrets": [{"name": "acme"}]}, True),
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


@pytest.mark.parametrize(
    ("change", "replaced"),
    [
        ({"moduleLimits": {"memoryPages": 32, "functions": 20000}}, False),
        ({"moduleLimits": {"memoryPages": 32, "tables": 2}}, True),
        ({"moduleLimits": {"memoryPages": 32, "tableElements": 20000}}, True),
        ({"componentLimits": {"coreInstances": 100}}, True),
    ],
)
def test_on_base_pages_what_wasmtimes_pool_sets_aside_replaces_agents(change: dict[str, Any], replaced: bool) -> None:
    before = template_of(agents_of(pool(**BASE_PAGES), SETTINGS).children[-1])
    after = template_of(agents_of(pool(**BASE_PAGES, **change), SETTINGS).children[-1])
    assert (before != after) is replaced
