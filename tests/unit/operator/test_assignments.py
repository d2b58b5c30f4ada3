"""What is written into the specs of nodes, and when nothing is."""

import msgspec

from tests.unit.operator.builders import member, pool, pool_node
from wasmpool_api.codec import decode
from wasmpool_api.instance_pool_node import InstancePoolNode, NodeAdmission
from wasmpool_operator.pool.manifests import node_admission
from wasmpool_operator.workload.assignments import Sheets, patches


def with_admission(node: InstancePoolNode, admission: NodeAdmission) -> InstancePoolNode:
    return msgspec.structs.replace(node, spec=msgspec.structs.replace(node.spec, admission=admission))


def test_nothing_is_written_where_nothing_changes() -> None:
    node = with_admission(pool_node(), node_admission(pool().spec))
    assert list(patches(pool(), [member(node)], Sheets())) == []


def test_changed_limits_reach_every_node_at_once_and_on_the_generation_that_was_planned_on() -> None:
    nodes = [with_admission(pool_node(name, generation=3), node_admission(pool().spec)) for name in ("n1", "n2")]
    changed = pool(moduleLimits={"functions": 7, "memoryPages": 32}, admission={"mode": "Count"})
    found = list(patches(changed, [member(node) for node in nodes], Sheets()))
    assert [it.name for it in found] == ["web.n1", "web.n2"]
    for patch in found:
        tested, _, *written = patch.operations
        assert tested == {"op": "test", "path": "/metadata/generation", "value": 3}
        values = {it["path"]: it["value"] for it in written}
        assert decode(NodeAdmission, values["/spec/admission"]) == node_admission(changed.spec)
        assert values["/spec/assignments"] == []


def test_a_node_that_an_earlier_operator_made_gets_its_limits() -> None:
    (patch,) = patches(pool(), [member(pool_node())], Sheets())
    assert "/spec/admission" in {it["path"] for it in patch.operations}
