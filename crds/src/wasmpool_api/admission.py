"""The verdict on a module: its needs against the limits, field by field, without running it.

What is judged, in this order, and every violation is reported, not the first one:

    features        proposals that no agent runs                        UnsupportedFeature, always refused
    module limits   the pool's moduleLimits, lowered by the workload's  ExceedsModuleLimits
    the slot        a memory that is larger than what a slot has for it ExceedsModuleLimits, also with mode Count
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import msgspec

from wasmpool_api.instance_pool import AdmissionMode, AllocationType, Backing, Fallback, InstancePoolSpec
from wasmpool_api.limits import ModuleLimits
from wasmpool_api.reasons import Outcome, Refusal
from wasmpool_api.wasm.features import UNSUPPORTED
from wasmpool_api.wasm_workload import ModuleNeeds, WorkloadLimits

SLOT_FIELDS: Final = frozenset({"memories", "memoryPages"})
"""What a slot of the region is cut for: no mode makes a larger memory fit."""
BASE_PAGES_FIELDS: Final = SLOT_FIELDS | {"tables", "tableElements"}
"""Wasmtime's own pool sets tables aside as well."""


@dataclass(frozen=True, slots=True)
class Violation:
    """`field` of moduleLimits as it stands in YAML, or "features"; what the module needs, and what it may have.

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
) -> Verdict:
    """Whether a module with such needs may run in the pool called `pool`.

    `mode` Count admits what only moduleLimits would refuse; of `slot_fields` nothing is ever admitted beyond the limit.
    """
    violations = tuple(
        violation
        for found in (
            _features(needs),
            _workload_limits(limits, workload_limits, pool),
            _limits(needs, limits, workload_limits, pool, slot_fields if mode is AdmissionMode.COUNT else None),
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
    unsupported = any(violation.field == "features" for violation in enforced)
    return Verdict(
        admitted=False,
        reason=Refusal.UNSUPPORTED_FEATURE if unsupported else Refusal.EXCEEDS_MODULE_LIMITS,
        message="; ".join(violation.message for violation in enforced),
        violations=violations,
    )


def judge_for(needs: ModuleNeeds, spec: InstancePoolSpec, workload_limits: WorkloadLimits | None, pool: str) -> Verdict:
    """`judge` with the limits and the mode that the pool's spec has."""
    allocation = spec.allocation
    base_pages = allocation.type is AllocationType.POOLING and (
        allocation.backing is Backing.BASE_PAGES or allocation.fallback is Fallback.BASE_PAGES
    )
    return judge(
        needs,
        spec.module_limits,
        workload_limits,
        pool,
        mode=spec.admission.mode,
        slot_fields=BASE_PAGES_FIELDS if base_pages else SLOT_FIELDS,
    )


def _features(needs: ModuleNeeds) -> Iterator[Violation]:
    for feature in needs.features:
        if feature in UNSUPPORTED:
            yield Violation("features", feature, "", f"the module uses {feature}, which wasmpool does not support")


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
) -> Iterator[Violation]:
    """`enforced`: the fields for which a module is refused; None for all."""
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
                f"{_subject(name, needed, needs)}, {by} allows {allowed}",
                enforced is None or name in enforced,
            )


def _subject(name: str, needed: int, needs: ModuleNeeds) -> str:
    # The index space begins with the imported ones; with several defined ones nobody knows any more which it was.
    if name == "memoryPages":
        which = f"memory {needs.imported_memories}" if needs.memories == 1 else "the largest memory"
        return f"{which} needs {needed} pages"
    if name == "tableElements":
        which = f"table {needs.imported_tables}" if needs.tables == 1 else "the largest table"
        return f"{which} needs {needed} elements"
    return f"{name}: needs {needed}"
