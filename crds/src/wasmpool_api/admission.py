"""The verdict on a module: its needs against the limits, field by field, without running it.

What is judged, in this order, and every violation is reported, not the first one:

    features         proposals that no agent runs                        UnsupportedFeature, always refused
    module limits    the pool's moduleLimits, lowered by the workload's  ExceedsModuleLimits
    component limits the pool's componentLimits                          ExceedsModuleLimits
    the slot         a memory that is larger than what a slot has for it ExceedsModuleLimits, also with mode Count

moduleLimits hold for each core module of a component, componentLimits for what all its core instances have together.
A slot is cut for moduleLimits.memories, so that a component's memories must not be more than that either.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

from wasmpool_api.instance_pool import AdmissionMode, AllocationType, Backing, Fallback, InstancePoolSpec
from wasmpool_api.limits import ComponentLimits, ModuleLimits
from wasmpool_api.reasons import Outcome, Refusal
from wasmpool_api.wasm import UNSUPPORTED, Component
from wasmpool_api.wasm_workload import ComponentNeeds, ModuleNeeds, WorkloadLimits

FEATURES: Final = "features"
"""The field of a violation that no limit has to do with."""
SLOT_FIELDS: Final = frozenset({"memories", "memoryPages"})
"""What a slot of the region is cut for: no mode makes a larger memory fit."""
BASE_PAGES_FIELDS: Final = SLOT_FIELDS | {"tables", "tableElements", "coreInstances"}
"""Wasmtime's own pool sets tables and instances aside as well."""
COMPONENT_LIMITS: Final = "componentLimits."


@dataclass(frozen=True, slots=True)
class Violation:
    """`field` of moduleLimits as it stands in YAML, or "features"; what the module needs, and what it may have.

    Of other limits the field has their name before it: "limits.memoryPages", "componentLimits.tables".
    `enforced`: refused for it. Otherwise it is only counted (admission.mode Count).
    """

    field: str
    needed: int | str
    allowed: int | str
    message: str
    enforced: bool = True


@dataclass(frozen=True, slots=True)
class Verdict:
    """`reason` and `message`: of the condition Admitted. Invariant: admitted unless a violation is enforced."""

    admitted: bool
    reason: Refusal | Outcome
    message: str
    violations: tuple[Violation, ...] = ()

    @property
    def within_limits(self) -> bool:
        """Whether no limit is exceeded; what else a module may be refused for is another matter."""
        return all(violation.field == FEATURES for violation in self.violations)

    @property
    def would_refuse(self) -> bool:
        """Admitted only because the pool's admission.mode is Count."""
        return self.admitted and bool(self.violations)


def judge(
    needs: ModuleNeeds,
    limits: ModuleLimits,
    workload_limits: WorkloadLimits | None,
    pool: str,
    *,
    mode: AdmissionMode = AdmissionMode.ENFORCE,
    slot_fields: frozenset[str] = SLOT_FIELDS,
    component: Component | None = None,
    sums: ComponentNeeds | None = None,
    component_limits: ComponentLimits | None = None,
) -> Verdict:
    """Whether a module with such needs may run in the pool called `pool`.

    `mode` Count admits what only the limits would refuse; of `slot_fields` nothing is ever admitted beyond the limit.
    `component`: what it is made of, where it is one and that is known; `component_limits` are for that. `sums`: what a
    component's core instances have together, where only that is known: the verdict is the same, its words don't say
    which core module it is.
    """
    together = component.needs if component is not None else sums
    enforced_fields = slot_fields if mode is AdmissionMode.COUNT else None
    violations = tuple(
        violation
        for found in (
            _features(needs),
            _workload_limits(limits, workload_limits, pool),
            _limits(needs, limits, workload_limits, pool, enforced_fields, component),
            _component_limits(together, limits, component_limits or ComponentLimits(), pool, enforced_fields),
        )
        for violation in found
    )
    enforced = [violation for violation in violations if violation.enforced]
    if not violations:
        return Verdict(admitted=True, reason=Outcome.ADMITTED, message=f"within the limits of pool {pool}")
    if not enforced:
        told = "; ".join(violation.message for violation in violations)
        message = f"admission.mode of pool {pool} is Count; Enforce would refuse: {told}"
        return Verdict(admitted=True, reason=Outcome.ADMITTED, message=message, violations=violations)
    unsupported = any(violation.field == FEATURES for violation in enforced)
    return Verdict(
        admitted=False,
        reason=Refusal.UNSUPPORTED_FEATURE if unsupported else Refusal.EXCEEDS_MODULE_LIMITS,
        message="; ".join(violation.message for violation in enforced),
        violations=violations,
    )


def judge_for(
    needs: ModuleNeeds,
    spec: InstancePoolSpec,
    workload_limits: WorkloadLimits | None,
    pool: str,
    component: Component | None = None,
    *,
    sums: ComponentNeeds | None = None,
) -> Verdict:
    """`judge` with the limits and the mode that the pool's spec has."""
    return judge(
        needs,
        spec.module_limits,
        workload_limits,
        pool,
        mode=spec.admission.mode,
        slot_fields=slot_fields_of(spec),
        component=component,
        sums=sums,
        component_limits=spec.component_limits,
    )


def slot_fields_of(spec: InstancePoolSpec) -> frozenset[str]:
    """The limits that an agent has set memory aside for: a change of one of them needs a new agent."""
    allocation = spec.allocation
    base_pages = allocation.type is AllocationType.POOLING and (
        allocation.backing is Backing.BASE_PAGES or allocation.fallback is Fallback.BASE_PAGES
    )
    return BASE_PAGES_FIELDS if base_pages else SLOT_FIELDS


def _features(needs: ModuleNeeds) -> Iterator[Violation]:
    for feature in needs.features:
        if feature in UNSUPPORTED:
            message = f"the module uses {feature}, which wasmpool does not support"
            yield Violation(FEATURES, feature, "", message)


def _workload_limits(limits: ModuleLimits, workload_limits: WorkloadLimits | None, pool: str) -> Iterator[Violation]:
    wanted = workload_limits.memory_pages if workload_limits is not None else None
    if wanted is not None and wanted > limits.memory_pages:
        yield Violation(
            "limits.memoryPages",
            wanted,
            limits.memory_pages,
            f"the workload's limits.memoryPages is {wanted}, pool {pool} allows {limits.memory_pages}: "
            "a workload may only lower the pool's limits",
        )


def _limits(
    needs: ModuleNeeds,
    limits: ModuleLimits,
    workload_limits: WorkloadLimits | None,
    pool: str,
    enforced: frozenset[str] | None,
    component: Component | None,
) -> Iterator[Violation]:
    """`enforced`: the fields for which a module is refused; None for all."""
    modules = [module.needs for module in component.modules] if component is not None else []
    allower = f"pool {pool}"
    own = workload_limits.memory_pages if workload_limits is not None else None
    for field in msgspec.structs.fields(ModuleLimits):
        needed: int = getattr(needs, field.name)
        allowed: int = getattr(limits, field.name)
        name = field.encode_name
        by = allower
        if name == "memoryPages" and own is not None and own < allowed:
            allowed, by = own, "the workload's limits.memoryPages"
        if needed > allowed:
            yield Violation(
                name,
                needed,
                allowed,
                f"{_subject(name, needed, needs)}, {by} allows {allowed}"
                if not modules or name == "importedFunctions"
                else _of_modules(field.name, name, modules, allowed, by),
                enforced is None or name in enforced,
            )


def _of_modules(attribute: str, name: str, modules: Sequence[ModuleNeeds], allowed: int, by: str) -> str:
    """The one that needs most, and how many more there are."""
    counts: list[int] = [getattr(needs, attribute) for needs in modules]
    worst = counts.index(max(counts))
    others = sum(count > allowed for count in counts) - 1
    more = f" ({others} more of its core modules need more than that)" if others else ""
    return f"core module {worst}: {_subject(name, counts[worst], modules[worst])}, {by} allows {allowed}{more}"


def _component_limits(
    sums: ComponentNeeds | None,
    limits: ModuleLimits,
    component_limits: ComponentLimits,
    pool: str,
    enforced: frozenset[str] | None,
) -> Iterator[Violation]:
    if sums is None:
        return
    for field in msgspec.structs.fields(ComponentLimits):
        needed: int = getattr(sums, field.name)
        allowed: int = getattr(component_limits, field.name)
        name = field.encode_name
        if needed > allowed:
            message = f"{COMPONENT_LIMITS}{name}: the component makes {needed}, pool {pool} allows {allowed}"
            yield Violation(COMPONENT_LIMITS + name, needed, allowed, message, enforced is None or name in enforced)
    together, slot = sums.memories, limits.memories
    if slot < together <= component_limits.memories:
        message = f"memories: the component makes {together}, a slot of pool {pool} has room for {slot}"
        yield Violation("memories", together, slot, message)


def _subject(name: str, needed: int, needs: ModuleNeeds) -> str:
    # The index space begins with the imported ones; with several defined ones nobody knows any more which it was.
    if name == "memoryPages":
        which = f"memory {needs.imported_memories}" if needs.memories == 1 else "the largest memory"
        return f"{which} needs {needed} pages"
    if name == "tableElements":
        which = f"table {needs.imported_tables}" if needs.tables == 1 else "the largest table"
        return f"{which} needs {needed} elements"
    return f"{name}: needs {needed}"
