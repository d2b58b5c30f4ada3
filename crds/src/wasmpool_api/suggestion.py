"""The smallest limits that admit given modules, and the spec of a pool that has them."""

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from wasmpool_api.instance_pool import InstancePoolSpec
from wasmpool_api.limits import ComponentLimits, ModuleLimits
from wasmpool_api.wasm import Inspection


@dataclass(frozen=True, slots=True)
class Suggestion:
    """`component_limits`: None where there is no component among the modules."""

    module_limits: ModuleLimits
    component_limits: ComponentLimits | None

    def applied_to(self, spec: InstancePoolSpec) -> InstancePoolSpec:
        """The spec with these limits instead of its own."""
        return msgspec.structs.replace(
            spec,
            module_limits=self.module_limits,
            component_limits=self.component_limits or spec.component_limits,
        )


def smallest_limits(inspections: Sequence[Inspection]) -> Suggestion:
    """Of each limit what the neediest module needs; a slot has one memory of one page at least.

    It must have room for all memories of a component: moduleLimits.memories is what slots are cut for.
    """
    components = [it.component.needs for it in inspections if it.component is not None]
    most: dict[str, int] = {
        name: max((getattr(it.needs, name) for it in inspections), default=0) for name in ModuleLimits.__struct_fields__
    }
    together = max((it.memories for it in components), default=0)
    module_limits = ModuleLimits(
        **most | {"memories": max(most["memories"], together, 1), "memory_pages": max(most["memory_pages"], 1)}
    )
    if not components:
        return Suggestion(module_limits, None)
    return Suggestion(
        module_limits,
        ComponentLimits(
            core_instances=max(it.core_instances for it in components),
            memories=together,
            tables=max(it.tables for it in components),
        ),
    )
