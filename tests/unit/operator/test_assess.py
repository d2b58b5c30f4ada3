"""From what agents report of a module to a verdict, and what becomes of a refused one when limits or module change.

Covers: a module is pinned once an agent has seen it and nobody refuses it; a refused one is looked at again and may
become another; what was admitted keeps its digest; digests of images; what mode Count lets through.
"""

from typing import Any

import msgspec
import pytest

from tests.unit.operator.builders import agent_info, member, pool, pool_node, workload
from wasmpool_api.codec import decode
from wasmpool_api.instance_pool_node import Assignment, NodeWorkload
from wasmpool_api.revisions import revision_of
from wasmpool_api.wasm_workload import ModuleStatus, WasmWorkload
from wasmpool_operator.conditions import Truth
from wasmpool_operator.pool.members import Member
from wasmpool_operator.views import PoolKey
from wasmpool_operator.workload.assess import Assessment, assess
from wasmpool_operator.workload.reports import Place, Report

KEY = PoolKey("team", "web")
FITS = {"functions": 10}
TOO_MANY = {"functions": 12000}


def on(found: Report, name: str, *, slot_bytes: int = 2 * 2**20) -> Report:
    """The same, said by the agent of another node."""
    memory = {"backing": "HugePages2Mi", "pageSize": "2Mi", "slotBytes": slot_bytes, "regionBytes": slot_bytes * 4}
    status = {"agent": agent_info(), "observedGeneration": 1, "memory": memory}
    return Report(member(pool_node(name, status=status)), found.entry, found.current)


def digest(letter: str) -> str:
    return "sha256:" + letter * 64


def module(needs: dict[str, Any], letter: str = "a", **more: Any) -> dict[str, Any]:
    full = {"features": []} | needs
    return {"digest": digest(letter), "sizeBytes": 1, "needs": full} | more


def report(found: WasmWorkload, state: str, *, fresh: bool = True, inspect: bool = True, **entry: Any) -> Report:
    revision = revision_of(found) if inspect else revision_of(found, digest("a"))
    content = {"uid": found.metadata.uid, "revision": revision.name, "state": state} | entry
    node = pool_node(status={"agent": agent_info("pod-1" if fresh else "pod-0"), "observedGeneration": 1})
    return Report(member(node), decode(NodeWorkload, content), current=fresh)


def judged(
    found: WasmWorkload, *reports: Report, places: tuple[Place, ...] = (), nodes: tuple[Member, ...] = (), **spec: Any
) -> Assessment:
    return assess(
        found, pool(**spec), KEY, not_allowed=None, any_node_ready=True, reports=reports, places=places, nodes=nodes
    )


def remembering(needs: dict[str, Any], *, fixed: bool, **more: Any) -> WasmWorkload:
    """A workload whose status has a module: admitted once, or refused so far."""
    found = workload(**more)
    status = decode(ModuleStatus, module(needs))
    revision = revision_of(found, digest("a")) if fixed else revision_of(found)
    remembered = msgspec.structs.replace(found.status, module=status, updated_revision=revision.name)
    return msgspec.structs.replace(found, status=remembered)


def test_a_module_that_an_agent_has_seen_and_nobody_refuses_is_pinned_and_admitted() -> None:
    found = judged(workload(), report(workload(), "Inspected", reason="ModuleValid", module=module(FITS)))
    assert found.admitted
    assert found.revision.digest == digest("a")
    assert not found.inspect


def test_an_image_is_pinned_by_its_own_digest_too() -> None:
    image = "example.com/a@" + digest("c")
    source = {"image": "example.com/a:1"}
    seen = report(workload(module=source), "Inspected", module=module(FITS, image=image))
    found = judged(workload(module=source), seen)
    assert (found.revision.digest, found.revision.image) == (digest("a"), image)
    assert found.module is not None
    assert found.module.image == image


def test_a_refused_module_is_looked_at_again() -> None:
    found = judged(workload(), report(workload(), "Refused", reason="ExceedsModuleLimits", module=module(TOO_MANY)))
    assert found.refused
    assert found.admission.message == "functions: needs 12000, pool web allows 10000"
    assert found.inspect
    assert found.revision.digest == ""


def test_a_refusal_outlives_the_agent_that_gave_it() -> None:
    known = remembering(TOO_MANY, fixed=False)
    for reports in ((), (report(known, "Refused", fresh=False, module=module(FITS, "b")),)):
        found = judged(known, *reports)
        assert found.admission.reason == "ExceedsModuleLimits"
        assert found.inspect


def test_a_mended_module_takes_the_place_of_the_refused_one() -> None:
    known = remembering(TOO_MANY, fixed=False)
    found = judged(known, report(known, "Inspected", module=module(FITS, "b")))
    assert found.admitted
    assert found.revision.digest == digest("b")


def test_raised_limits_admit_a_module_once_it_was_seen_under_them() -> None:
    """It may have been mended as well: what is pinned must be there."""
    known = remembering(TOO_MANY, fixed=False)
    limits = {"moduleLimits": {"functions": 20000, "memoryPages": 32}}
    waits = judged(known, **limits)
    assert (waits.admission.truth, waits.admission.reason) == (Truth.UNKNOWN, "Inspecting")
    assert waits.inspect
    refused = report(
        known, "Refused", reason="ExceedsModuleLimits", message="pool web allows 10000", module=module(TOO_MANY)
    )
    waits = judged(known, refused, **limits)
    assert (waits.admission.truth, waits.admission.reason) == (Truth.UNKNOWN, "Inspecting")
    assert "the agent on node n1 goes by older ones: pool web allows 10000" in waits.admission.message
    assert judged(known, report(known, "Inspected", module=module(TOO_MANY)), **limits).revision.digest == digest("a")


def test_what_is_gone_or_broken_meanwhile_is_told_in_place_of_the_old_refusal() -> None:
    known = remembering(TOO_MANY, fixed=False)
    gone = judged(known, report(known, "Pulling", reason="ModulePullFailed", message="no such ConfigMap"))
    assert (gone.admission.truth, gone.admission.reason) == (Truth.UNKNOWN, "ModulePullFailed")
    broken = judged(known, report(known, "Refused", reason="ModuleInvalid", message="offset 3"))
    assert (broken.module_valid.reason, broken.module_valid.message) == ("ModuleInvalid", "offset 3")
    assert gone.inspect
    assert broken.inspect


@pytest.mark.parametrize(("state", "reason"), [("Pending", "Starting"), ("Pulling", "Pulling")])
def test_while_an_agent_looks_again_the_refusal_stays(state: str, reason: str) -> None:
    known = remembering(TOO_MANY, fixed=False)
    assert judged(known, report(known, state, reason=reason)).refused
    first = judged(workload(), report(workload(), state, reason=reason))
    expected = {"Starting": ("Inspecting", "the module is being inspected")}
    assert (first.admission.reason, first.admission.message) == expected.get(
        reason, ("Pulling", "the module is being fetched")
    )


def test_what_only_the_agent_refuses_holds_no_slot_and_is_looked_at_again() -> None:
    seen = report(workload(), "Refused", reason="UnsupportedFeature", message="env.f", module=module(FITS))
    found = judged(workload(), seen)
    assert (found.refused, found.admission.message, found.inspect) == (True, "env.f", True)
    assert found.revision.digest == ""


def test_a_source_that_can_give_no_other_module_is_not_asked_again_for_what_limits_refuse() -> None:
    known = remembering(TOO_MANY, fixed=False, module={"image": "example.com/a@" + digest("c")})
    refused = judged(known)
    assert (refused.refused, refused.inspect) == (True, False)
    assert judged(known, moduleLimits={"functions": 20000, "memoryPages": 32}).inspect


def test_an_admitted_module_keeps_its_digest_whatever_is_at_its_source() -> None:
    known = remembering(FITS, fixed=True)
    found = judged(known, report(known, "Inspected", module=module(FITS, "b")))
    assert found.revision.digest == digest("a")
    assert found.admitted
    assert not found.inspect


def test_a_module_that_an_agent_can_not_run_gives_way_to_another_one_at_its_source() -> None:
    """Compiling finds more than an inspection."""
    known = remembering(FITS, fixed=True)
    refusal = report(known, "Refused", inspect=False, reason="ModuleInvalid", message="offset 7")
    found = judged(known, refusal)
    assert (found.refused, found.inspect, found.refusing) == (True, True, {"n1"})
    assert (found.revision.digest, found.inspection.name) == (digest("a"), revision_of(known).name)
    same = judged(known, refusal, report(known, "Inspected", module=module(FITS)))
    assert same.refusing
    other = judged(known, refusal, report(known, "Inspected", module=module(FITS, "b")))
    assert other.admitted
    assert other.revision.digest == digest("b")
    too_large = judged(known, refusal, report(known, "Inspected", module=module(TOO_MANY, "b")))
    assert too_large.admission.reason == "ExceedsModuleLimits"
    assert too_large.inspect


@pytest.mark.parametrize("held_by", ["a spec", "an agent"])
def test_an_admitted_module_is_pinned_until_the_last_of_it_has_ended(held_by: str) -> None:
    """Limits were lowered: its slots are taken first."""
    known = remembering(TOO_MANY, fixed=True)
    name = revision_of(known, digest("a")).name
    other = report(known, "Inspected", module=module(FITS, "b"))
    if held_by == "a spec":
        assignment = Assignment(uid=known.metadata.uid, namespace="team", name="job", revision=name, slots=1)
        found = judged(known, other, places=(Place(member(), assignment),))
    else:
        found = judged(known, other, report(known, "Running", inspect=False, usedSlots=1))
    assert found.refused
    assert found.revision.name == name
    assert not found.inspect
    ended = judged(known)
    assert ended.refused
    assert ended.inspect
    assert ended.revision.digest == ""


def test_the_sums_of_a_component_are_judged_without_its_inspection() -> None:
    """That components are not run yet is told beside it."""
    sums = {"coreInstances": 40, "memories": 1, "tables": 1}
    needs = FITS | {"features": ["Component"]}
    found = judged(workload(), report(workload(), "Refused", module=module(needs, component=sums)))
    assert "componentLimits.coreInstances: the component makes 40, pool web allows 30" in found.admission.message


def test_count_admits_what_it_would_refuse_and_says_so() -> None:
    seen = report(workload(), "Inspected", module=module(TOO_MANY))
    found = judged(workload(), seen, admission={"mode": "Count"})
    assert found.admitted
    assert found.would_refuse
    assert found.admission.message == (
        "admission.mode of pool web is Count; Enforce would refuse: functions: needs 12000, pool web allows 10000"
    )
    assert not judged(workload(), report(workload(), "Inspected", module=module(FITS))).would_refuse


@pytest.mark.parametrize("reason", ["AgentTooOld", "ExceedsModuleLimits"])
def test_a_refusal_that_is_about_a_node_leaves_the_others_their_slots(reason: str) -> None:
    known = remembering(FITS, fixed=True)
    refusal = on(report(known, "Refused", inspect=False, reason=reason, message="older"), "n1")
    other = on(report(known, "Pending", inspect=False), "n2")
    found = judged(known, refusal, other, nodes=(refusal.member, other.member))
    assert (found.admitted, found.refusing, found.inspect) == (True, {"n1"}, False)
    assert found.admission.message == f"within the limits of pool web; not on node n1: {reason}: older"
    both = judged(known, refusal, on(refusal, "n2"), nodes=(refusal.member, other.member))
    assert (both.refused, both.refusing) == (True, {"n1", "n2"})
    assert judged(known, refusal, nodes=(refusal.member,)).refused


@pytest.mark.parametrize("reason", ["ModuleInvalid", "UnsupportedFeature"])
def test_a_refusal_that_is_about_the_module_is_everybodys_unless_somebody_runs_it(reason: str) -> None:
    known = remembering(FITS, fixed=True)
    refusal = on(report(known, "Refused", inspect=False, reason=reason, message="offset 7"), "n1")
    for state, admitted in (("Pending", False), ("Compiling", False), ("Running", True)):
        other = on(report(known, state, inspect=False), "n2")
        found = judged(known, refusal, other, nodes=(refusal.member, other.member))
        assert (found.admitted, found.refusing) == (admitted, {"n1"})


def test_a_counted_run_that_still_goes_on_where_it_is_refused_does_not_begin_elsewhere() -> None:
    known = remembering(FITS, fixed=True, run={"command": {"restartPolicy": "Never"}})
    refusal = report(known, "Refused", inspect=False, reason="AgentTooOld", usedSlots=1)
    assert judged(known, refusal, nodes=(refusal.member, member(pool_node("n2")))).refusing == frozenset()
    ended = report(known, "Refused", inspect=False, reason="AgentTooOld")
    assert judged(known, ended, nodes=(refusal.member, member(pool_node("n2")))).refusing == {"n1"}


def test_a_node_whose_slots_are_smaller_than_the_modules_memory_is_left_out() -> None:
    known = remembering(FITS | {"memoryPages": 32}, fixed=True)
    nodes = tuple(
        on(report(known, "Pending"), name, slot_bytes=slots).member for name, slots in (("n1", 2**20), ("n2", 2**21))
    )
    assert judged(known, nodes=nodes).too_small == {"n1"}
