"""The cache against lists and events in any order: no ghosts, nothing brought back, nothing replaced by its past."""

from typing import Any

from wasmpool_operator.cache import Cache
from wasmpool_operator.resources import NODES, WASM_WORKLOADS
from wasmpool_operator.views import PoolKey


def node(name: str, version: int, **labels: str) -> dict[str, Any]:
    metadata = {"name": name, "uid": name, "resourceVersion": str(version), "labels": labels}
    return {"apiVersion": "v1", "kind": "Node", "metadata": metadata}


def names(cache: Cache) -> list[str]:
    return sorted(it.metadata.name for it in cache.nodes)


def test_what_a_complete_list_does_not_have_is_gone() -> None:
    cache = Cache()
    cache.nodes.put(node("ghost", 5))
    cache.nodes.replace([node("a", 6)], "10")
    assert names(cache) == ["a"]


def test_what_was_made_while_the_list_was_read_stays() -> None:
    cache = Cache()
    cache.nodes.put(node("new", 12))
    cache.nodes.replace([node("a", 6)], "10")
    assert names(cache) == ["a", "new"]


def test_what_was_deleted_while_the_list_was_read_does_not_come_back() -> None:
    cache = Cache()
    cache.nodes.put(node("a", 6))
    cache.nodes.remove(node("a", 12))
    cache.nodes.replace([node("a", 6)], "10")
    assert names(cache) == []


def test_an_older_state_does_not_replace_a_newer_one() -> None:
    cache = Cache()
    cache.nodes.put(node("a", 9, zone="new"))
    assert cache.nodes.put(node("a", 8, zone="old")) is False
    found = cache.nodes.get("", "a")
    assert found is not None
    assert found.metadata.labels == {"zone": "new"}


def test_a_change_that_the_operator_does_not_read_is_no_news() -> None:
    cache = Cache()
    assert cache.nodes.put(node("a", 8)) is True
    heartbeat = node("a", 9) | {"status": {"conditions": [{"type": "Ready", "lastHeartbeatTime": "x"}]}}
    assert cache.nodes.put(heartbeat) is False


def test_an_event_names_the_pools_that_it_concerns() -> None:
    cache = Cache()
    workload = {
        "metadata": {"name": "w", "namespace": "team", "uid": "u", "resourceVersion": "1"},
        "spec": {"poolRef": {"name": "web", "namespace": "pools"}, "module": {"image": "x"}, "run": {"command": {}}},
    }
    assert cache.observe(WASM_WORKLOADS, workload, deleted=False) == {PoolKey("pools", "web")}
    assert cache.observe(NODES, node("a", 2), deleted=False) == {PoolKey("pools", "web")}
    assert cache.observe(WASM_WORKLOADS, workload, deleted=True) == {PoolKey("pools", "web")}
    assert cache.all_pools() == set()
