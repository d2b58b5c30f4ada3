"""`wasmpool-agent check`: the verdict on modules, field by field, and what the pool's slots cost. No guest is run."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

from wasmpool_agent.check_sources import Found
from wasmpool_agent.modules.inspecting import Finding, examine_inspected, module_status
from wasmpool_agent.modules.sources import digest_of
from wasmpool_api.admission import COMPONENT_LIMITS
from wasmpool_api.backing_choice import BackingChoice, backing_for
from wasmpool_api.instance_pool import InstancePool, InstancePoolSpec
from wasmpool_api.limits import ComponentLimits, InstanceLimits, ModuleLimits
from wasmpool_api.meta import ObjectMeta
from wasmpool_api.reasons import Refusal
from wasmpool_api.region import RegionError, RegionShape, overhead_bytes_per_node, region_shape
from wasmpool_api.suggestion import Suggestion, smallest_limits
from wasmpool_api.wasm import Inspection, ModuleInvalid, inspect
from wasmpool_api.wasm_workload import ModuleStatus

RFC_INSTANCE_COUNT: Final = 1000


@dataclass(frozen=True, slots=True)
class Checked:
    """One module and what was found. `name`: the file or reference, as given. `image`: of a reference, what it meant.

    `inspection`: None where the finding is that it can't be read.
    """

    name: str
    size_bytes: int
    digest: str
    finding: Finding
    inspection: Inspection | None
    image: str = ""

    def status(self, inspection: Inspection) -> ModuleStatus:
        """As a workload's status has it."""
        return module_status(inspection, self.digest, self.size_bytes)


@dataclass(frozen=True, slots=True)
class Row:
    """A limit, by the name it has in YAML, with what the module needs of it."""

    limit: str
    needed: int
    allowed: int

    @property
    def margin(self) -> int:
        """Negative where the limit is exceeded."""
        return self.allowed - self.needed


@dataclass(frozen=True, slots=True)
class Cost:
    """What a pool's slots take on each node. `overhead_bytes`: outside of the region."""

    shape: RegionShape
    overhead_bytes: int


@dataclass(frozen=True, slots=True)
class Suggested:
    """`cost`: None where `problem` says why no region can be made with these limits.

    `refused`: those that no limit admits, and why; those that can't be read are not among them.
    """

    suggestion: Suggestion
    cost: Cost | None
    problem: str
    refused: tuple[tuple[str, Finding], ...]


def default_pool() -> InstancePool:
    """The RFC's limits, for a check without a pool."""
    return InstancePool(
        metadata=ObjectMeta(name="default", namespace="default"),
        spec=InstancePoolSpec(instance_limits=InstanceLimits(count=RFC_INSTANCE_COUNT)),
    )


def check(found: Found, pool: InstancePool, entrypoint: str) -> Checked:
    """The verdict on what was found."""
    data, digest = found.data, digest_of(found.data)
    try:
        inspection = inspect(data)
    except ModuleInvalid as error:
        invalid = Finding(Refusal.MODULE_INVALID, str(error))
        return Checked(found.name, len(data), digest, invalid, None, found.image)
    finding = examine_inspected(inspection, module_status(inspection, digest, len(data)), pool, None, entrypoint)
    return Checked(found.name, len(data), digest, finding, inspection, found.image)


def rows(inspection: Inspection, pool: InstancePool) -> Iterator[Row]:
    """One for each limit; of a component also those of its sums."""
    for limit in msgspec.structs.fields(ModuleLimits):
        needed: int = getattr(inspection.needs, limit.name)
        allowed: int = getattr(pool.spec.module_limits, limit.name)
        yield Row(limit.encode_name, needed, allowed)
    if inspection.component is None:
        return
    for limit in msgspec.structs.fields(ComponentLimits):
        needed = getattr(inspection.component.needs, limit.name)
        allowed = getattr(pool.spec.component_limits, limit.name)
        yield Row(COMPONENT_LIMITS + limit.encode_name, needed, allowed)


def cost(spec: InstancePoolSpec) -> Cost:
    """Raises RegionError."""
    shape = region_shape(spec)
    return Cost(shape, overhead_bytes_per_node(spec, shape))


def chosen_backing(checked: Sequence[Checked]) -> BackingChoice | None:
    """For all that can be read, together in one pool; None where there is none."""
    readable = [it.inspection for it in checked if it.inspection is not None]
    return backing_for(readable) if readable else None


def suggest(checked: Sequence[Checked], pool: InstancePool, entrypoint: str) -> Suggested | None:
    """The smallest limits for all files that can be read; None where there is none."""
    readable = [(it, it.inspection) for it in checked if it.inspection is not None]
    if not readable:
        return None
    suggestion = smallest_limits([inspection for _, inspection in readable])
    spec = suggestion.applied_to(pool.spec)
    tried = msgspec.structs.replace(pool, spec=spec)
    refused: list[tuple[str, Finding]] = []
    for it, inspection in readable:
        finding = examine_inspected(inspection, it.status(inspection), tried, None, entrypoint)
        if not finding.admitted:
            refused.append((it.name, finding))
    try:
        return Suggested(suggestion, cost(spec), "", tuple(refused))
    except RegionError as error:
        return Suggested(suggestion, None, str(error), tuple(refused))
