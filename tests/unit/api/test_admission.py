"""Covers: the verdict on a module: every violation, with numbers; what may be lowered; what mode Count lets through."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wasmpool_api.admission import BASE_PAGES_FIELDS, Verdict, judge, judge_for
from wasmpool_api.codec import decode
from wasmpool_api.instance_pool import AdmissionMode, InstancePoolSpec
from wasmpool_api.limits import ComponentLimits, ModuleLimits
from wasmpool_api.reasons import Outcome, Refusal
from wasmpool_api.wasm import UNSUPPORTED, Component, CoreModule, Feature
from wasmpool_api.wasm_workload import ComponentNeeds, ModuleNeeds, WorkloadLimits

LIMITS = ModuleLimits()


def verdict(needs: ModuleNeeds, own: int | None = None, **changes: object) -> Verdict:
    """Of pool web, with the RFC's limits."""
    return judge(needs, LIMITS, WorkloadLimits(memory_pages=own) if own else None, "web", **changes)  # type: ignore[arg-type]


def test_what_needs_nothing_is_admitted() -> None:
    assert verdict(ModuleNeeds()) == Verdict(
        admitted=True, reason=Outcome.ADMITTED, message="within the limits of pool web"
    )


def test_what_needs_all_that_is_allowed_is_admitted() -> None:
    assert verdict(ModuleNeeds(**msgspec.structs.asdict(LIMITS))).admitted


def test_the_message_of_the_design() -> None:
    found = verdict(ModuleNeeds(memories=1, memory_pages=512, functions=12000))
    assert not found.admitted
    assert found.reason is Refusal.EXCEEDS_MODULE_LIMITS
    assert (
        found.message == "functions: needs 12000, pool web allows 10000; memory 0 needs 512 pages, pool web allows 160"
    )
    assert [(it.field, it.needed, it.allowed) for it in found.violations] == [
        ("functions", 12000, 10000),
        ("memoryPages", 512, 160),
    ]


@pytest.mark.parametrize("field", msgspec.structs.fields(ModuleLimits), ids=lambda field: field.encode_name)
def test_one_more_than_allowed_is_refused_by_the_name_it_has_in_yaml(field: msgspec.structs.FieldInfo) -> None:
    needs = ModuleNeeds(**{field.name: field.default + 1})
    found = verdict(needs)
    (violation,) = found.violations
    assert (violation.field, violation.needed, violation.allowed) == (
        field.encode_name,
        field.default + 1,
        field.default,
    )
    assert str(field.default + 1) in found.message
    assert f"pool web allows {field.default}" in found.message


@given(
    st.fixed_dictionaries(
        {field.name: st.integers(0, 2 * field.default + 2) for field in msgspec.structs.fields(LIMITS)}
    )
)
def test_all_violations_are_told_and_nothing_else(needs: dict[str, int]) -> None:
    found = verdict(ModuleNeeds(**needs))
    over = {field.encode_name for field in msgspec.structs.fields(LIMITS) if needs[field.name] > field.default}
    assert {violation.field for violation in found.violations} == over
    assert found.admitted == (not over)
    assert found.message.count("; ") == max(len(over) - 1, 0)
    counted = verdict(ModuleNeeds(**needs), mode=AdmissionMode.COUNT)
    assert counted.admitted == (not over & {"memories", "memoryPages"})
    assert {violation.field for violation in counted.violations} == over
    assert counted.would_refuse == (counted.admitted and bool(over))


@pytest.mark.parametrize(
    ("needs", "message"),
    [
        (ModuleNeeds(memories=1, imported_memories=0, memory_pages=161), "memory 0 needs 161 pages"),
        (ModuleNeeds(tables=1, table_elements=10001), "table 0 needs 10001 elements, pool web allows 10000"),
        (ModuleNeeds(memories=2, memory_pages=161), "the largest memory needs 161 pages"),
        (ModuleNeeds(tables=1, imported_tables=2, table_elements=10001), "table 2 needs 10001 elements"),
    ],
)
def test_a_memory_or_table_is_named_by_its_index_where_that_is_known(needs: ModuleNeeds, message: str) -> None:
    assert message in verdict(needs).message


def test_a_workload_may_lower_the_limits() -> None:
    needs = ModuleNeeds(memories=1, memory_pages=20)
    assert verdict(needs, own=20).admitted
    found = verdict(needs, own=19)
    assert found.message == "memory 0 needs 20 pages, the workload's limits.memoryPages allows 19"
    assert not verdict(needs, own=19, mode=AdmissionMode.COUNT).admitted


def test_a_workload_may_not_raise_the_limits() -> None:
    found = verdict(ModuleNeeds(), own=161)
    assert found.reason is Refusal.EXCEEDS_MODULE_LIMITS
    assert found.message == (
        "the workload's limits.memoryPages is 161, pool web allows 160: a workload may only lower the pool's limits"
    )
    assert not verdict(ModuleNeeds(), own=161, mode=AdmissionMode.COUNT).admitted
    both = verdict(ModuleNeeds(memories=1, memory_pages=200), own=300)
    assert [it.field for it in both.violations] == ["limits.memoryPages", "memoryPages"]


@pytest.mark.parametrize("feature", sorted(UNSUPPORTED))
@pytest.mark.parametrize("mode", AdmissionMode)
def test_a_feature_that_no_agent_has_is_refused_by_name_in_any_mode(feature: str, mode: AdmissionMode) -> None:
    found = verdict(ModuleNeeds(features=(feature,)), mode=mode)
    assert found.reason is Refusal.UNSUPPORTED_FEATURE
    assert found.message == f"the module uses {feature}, which wasmpool does not support"
    assert found.within_limits


@pytest.mark.parametrize("feature", [Feature.SIMD, Feature.MULTI_MEMORY, "SomethingThatANewerAgentReports"])
def test_a_feature_that_agents_have_is_no_reason(feature: str) -> None:
    assert verdict(ModuleNeeds(features=(feature,))).admitted


def test_features_and_limits_are_told_together() -> None:
    found = verdict(ModuleNeeds(features=(Feature.GC, Feature.SHARED_MEMORY), globals=11))
    assert found.reason is Refusal.UNSUPPORTED_FEATURE
    assert found.message == (
        "the module uses GC, which wasmpool does not support; the module uses SharedMemory, which wasmpool does not "
        "support; globals: needs 11, pool web allows 10"
    )


def component(*modules: ModuleNeeds, instances: int = 1, memories: int = 0, tables: int = 0) -> Component:
    """With these core modules, and sums as they are given."""
    return Component(
        modules=tuple(CoreModule(0, 0, needs, (), 1) for needs in modules),
        needs=ComponentNeeds(core_instances=instances, memories=memories, tables=tables),
        sums=ModuleNeeds(),
        imports=(),
        exports=(),
    )


def test_the_core_module_that_needs_most_is_named_with_the_number_of_others() -> None:
    modules = [ModuleNeeds(globals=11), ModuleNeeds(globals=500), ModuleNeeds(globals=10), ModuleNeeds(globals=12)]
    found = verdict(ModuleNeeds(globals=500), component=component(*modules))
    assert found.message == (
        "core module 1: globals: needs 500, pool web allows 10 (2 more of its core modules need more than that)"
    )
    assert not found.within_limits
    modules = [ModuleNeeds(), ModuleNeeds(memories=1, imported_memories=1, memory_pages=161)]
    found = verdict(ModuleNeeds(memories=1, memory_pages=161), component=component(*modules))
    assert found.message == "core module 1: memory 1 needs 161 pages, pool web allows 160"


def test_imports_of_a_component_are_those_of_the_host_and_not_its_wiring() -> None:
    wired = component(ModuleNeeds(imported_functions=5000, imported_tables=3, imported_memories=1))
    assert verdict(ModuleNeeds(imported_functions=1000), component=wired).admitted
    assert verdict(ModuleNeeds(imported_functions=1001), component=wired).message == (
        "importedFunctions: needs 1001, pool web allows 1000"
    )


def test_the_sums_of_a_component_have_limits_of_their_own() -> None:
    assert verdict(ModuleNeeds(), component=component(instances=30, memories=1, tables=20)).admitted
    found = verdict(ModuleNeeds(), component=component(instances=31, memories=2, tables=21))
    assert found.reason is Refusal.EXCEEDS_MODULE_LIMITS
    assert found.message == (
        "componentLimits.coreInstances: the component makes 31, pool web allows 30; "
        "componentLimits.memories: the component makes 2, pool web allows 1; "
        "componentLimits.tables: the component makes 21, pool web allows 20"
    )
    assert [it.field for it in found.violations] == [
        "componentLimits.coreInstances",
        "componentLimits.memories",
        "componentLimits.tables",
    ]


def test_a_slot_must_have_room_for_all_memories_of_a_component() -> None:
    """Whatever componentLimits says."""
    wide = ComponentLimits(memories=4)
    found = verdict(ModuleNeeds(), component=component(memories=3), component_limits=wide, mode=AdmissionMode.COUNT)
    assert found.message == "memories: the component makes 3, a slot of pool web has room for 1"


@given(
    st.fixed_dictionaries(
        {"instances": st.integers(0, 40), "memories": st.integers(0, 4), "tables": st.integers(0, 25)}
    ),
    st.integers(0, 4),
    st.sampled_from(AdmissionMode),
    st.sampled_from([frozenset({"memories", "memoryPages"}), BASE_PAGES_FIELDS]),
)
def test_the_sums_of_a_component_alone_give_the_same_verdict(
    sums: dict[str, int], allowed: int, mode: AdmissionMode, slot_fields: frozenset[str]
) -> None:
    """An operator knows no more of it."""
    whole = component(ModuleNeeds(globals=11), **sums)
    changes: dict[str, object] = {
        "mode": mode,
        "slot_fields": slot_fields,
        "component_limits": ComponentLimits(memories=allowed),
    }
    seen = verdict(ModuleNeeds(globals=11), component=whole, **changes)
    told = verdict(ModuleNeeds(globals=11), sums=whole.needs, **changes)
    assert (told.admitted, told.reason, told.would_refuse) == (seen.admitted, seen.reason, seen.would_refuse)
    assert [(it.field, it.needed, it.allowed, it.enforced) for it in told.violations] == [
        (it.field, it.needed, it.allowed, it.enforced) for it in seen.violations
    ]


@pytest.mark.parametrize(
    ("backing", "sums", "admitted"),
    [
        ("HugePages2Mi", {"instances": 31, "tables": 21}, True),
        ("HugePages2Mi", {"memories": 2}, False),
        ("BasePages", {"instances": 31}, False),
        ("BasePages", {"tables": 21}, False),
        ("BasePages", {"tables": 20}, True),
    ],
)
def test_count_admits_what_the_slot_has_room_for(backing: str, sums: dict[str, int], admitted: bool) -> None:
    spec = decode(
        InstancePoolSpec,
        {"instanceLimits": {"count": 1}, "admission": {"mode": "Count"}, "allocation": {"backing": backing}},
    )
    assert judge_for(ModuleNeeds(), spec, None, "web", component(**sums)).admitted == admitted


def test_count_says_what_it_would_have_refused() -> None:
    found = verdict(ModuleNeeds(globals=11), mode=AdmissionMode.COUNT)
    assert found.admitted
    assert found.would_refuse
    assert found.message == (
        "admission.mode of pool web is Count; Enforce would refuse: globals: needs 11, pool web allows 10"
    )


def test_count_tells_only_what_it_refuses_for() -> None:
    found = verdict(ModuleNeeds(globals=11, memories=1, memory_pages=161), mode=AdmissionMode.COUNT)
    assert found.message == "memory 0 needs 161 pages, pool web allows 160"
    assert len(found.violations) == 2


@pytest.mark.parametrize(
    ("allocation", "admitted"),
    [
        ({}, True),
        ({"type": "OnDemand", "backing": "BasePages"}, True),
        ({"backing": "BasePages"}, False),
        ({"fallback": "BasePages"}, False),
    ],
)
def test_on_base_pages_tables_are_part_of_the_slot(allocation: dict[str, str], admitted: bool) -> None:
    spec = decode(
        InstancePoolSpec,
        {"instanceLimits": {"count": 1}, "admission": {"mode": "Count"}, "allocation": allocation},
    )
    assert judge_for(ModuleNeeds(tables=2), spec, None, "web").admitted == admitted
    assert judge_for(ModuleNeeds(globals=11), spec, None, "web").admitted
    assert judge(
        ModuleNeeds(tables=2), LIMITS, None, "web", mode=AdmissionMode.COUNT, slot_fields=BASE_PAGES_FIELDS
    ).reason
