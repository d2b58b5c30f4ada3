"""Covers: the smallest limits: they admit, and nothing smaller does; a slot holds all memories of a component."""

import msgspec
import pytest
import wasmtime

from tests.fuzz.component_corpus import COMPONENTS
from tests.fuzz.wasm_corpus import SAMPLES
from wasmpool_api.admission import judge_for
from wasmpool_api.instance_pool import InstancePoolSpec
from wasmpool_api.limits import ComponentLimits, InstanceLimits, ModuleLimits
from wasmpool_api.suggestion import Suggestion, smallest_limits
from wasmpool_api.wasm import Inspection, inspect

SPEC = InstancePoolSpec(instance_limits=InstanceLimits(count=4))
BINARIES = {**{name: it.binary for name, it in SAMPLES.items()}, **{name: it.binary for name, it in COMPONENTS.items()}}


def within(inspection: Inspection, suggestion: Suggestion) -> bool:
    """Whether a pool with these limits refuses it for none of them."""
    spec = suggestion.applied_to(SPEC)
    return judge_for(inspection.needs, spec, None, "web", inspection.component).within_limits


@pytest.mark.parametrize("name", BINARIES)
def test_each_module_is_within_the_limits_that_are_suggested_for_it(name: str) -> None:
    inspection = inspect(BINARIES[name])
    assert within(inspection, smallest_limits([inspection]))


def test_all_modules_are_within_the_limits_that_are_suggested_for_all() -> None:
    inspections = [inspect(binary) for binary in BINARIES.values()]
    suggestion = smallest_limits(inspections)
    assert all(within(inspection, suggestion) for inspection in inspections)


def test_one_less_of_anything_is_not_enough() -> None:
    inspections = [inspect(binary) for binary in BINARIES.values()]
    found = smallest_limits(inspections)
    assert found.component_limits is not None
    for field in ModuleLimits.__struct_fields__:
        less = msgspec.structs.replace(found.module_limits, **{field: getattr(found.module_limits, field) - 1})
        assert not all(within(it, Suggestion(less, found.component_limits)) for it in inspections), field
    for field in ComponentLimits.__struct_fields__:
        fewer = msgspec.structs.replace(found.component_limits, **{field: getattr(found.component_limits, field) - 1})
        assert not all(within(it, Suggestion(found.module_limits, fewer)) for it in inspections), field


def test_a_slot_has_a_memory_of_a_page_even_if_nobody_needs_one() -> None:
    found = smallest_limits([inspect(SAMPLES["nothing"].binary)])
    assert (found.module_limits.memories, found.module_limits.memory_pages) == (1, 1)
    assert found.component_limits is None
    assert found.applied_to(SPEC).component_limits == SPEC.component_limits


def test_slots_are_cut_for_all_memories_of_a_component() -> None:
    text = "(component (core module $m (memory 3)) (core instance (instantiate $m)) (core instance (instantiate $m)))"
    found = smallest_limits([inspect(bytes(wasmtime.wat2wasm(text)))])
    assert (found.module_limits.memories, found.module_limits.memory_pages) == (2, 3)
    assert found.component_limits == ComponentLimits(core_instances=2, memories=2, tables=0)
