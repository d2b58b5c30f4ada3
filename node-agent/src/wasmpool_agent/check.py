"""`wasmpool-agent check`: the verdict on modules, field by field, and what the pool's slots cost. No guest is run."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec

from wasmpool_agent.errors import UserError
from wasmpool_agent.modules.inspecting import Finding, examine
from wasmpool_agent.modules.sources import digest_of
from wasmpool_api.codec import encode
from wasmpool_api.instance_pool import InstancePool, InstancePoolSpec
from wasmpool_api.limits import InstanceLimits, ModuleLimits
from wasmpool_api.meta import ObjectMeta
from wasmpool_api.quantities import Quantity
from wasmpool_api.region import overhead_bytes_per_node, region_shape

RFC_INSTANCE_COUNT: Final = 1000


@dataclass(frozen=True, slots=True)
class Checked:
    """One file and what was found."""

    path: Path
    size_bytes: int
    digest: str
    finding: Finding


def default_pool() -> InstancePool:
    """The RFC's limits, for a check without a pool."""
    return InstancePool(
        metadata=ObjectMeta(name="default", namespace="default"),
        spec=InstancePoolSpec(instance_limits=InstanceLimits(count=RFC_INSTANCE_COUNT)),
    )


def check(path: Path, pool: InstancePool, entrypoint: str) -> Checked:
    """Raises UserError where the file can't be read."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from error
    return Checked(path, len(data), digest_of(data), examine(data, pool, None, entrypoint))


def as_json(checked: Sequence[Checked], pool: InstancePool) -> str:
    """One object with `pool` and `modules`, indented."""
    modules: list[dict[str, Any]] = []
    for it in checked:
        module: dict[str, Any] = {
            "file": str(it.path),
            "digest": it.digest,
            "sizeBytes": it.size_bytes,
            "admitted": it.finding.admitted,
            "reason": it.finding.reason.value,
            "message": it.finding.message,
        }
        if it.finding.needs is not None:
            module["needs"] = encode(it.finding.needs)
            module["violations"] = [
                {
                    "field": each.field,
                    "needed": each.needed,
                    "allowed": each.allowed,
                    "message": each.message,
                    "enforced": each.enforced,
                }
                for each in (it.finding.verdict.violations if it.finding.verdict is not None else ())
            ]
        modules.append(module)
    return json.dumps({"pool": _cost(pool), "modules": modules}, indent=2)


def as_table(checked: Sequence[Checked], pool: InstancePool) -> str:
    """For a person."""
    parts = [_module_table(it, pool) for it in checked]
    parts.append(_cost_text(pool))
    return "\n\n".join(parts)


def _module_table(checked: Checked, pool: InstancePool) -> str:
    finding = checked.finding
    verdict = "Admitted" if finding.admitted else f"Refused, {finding.reason.value}"
    lines = [
        f"{checked.path}: {verdict}: {finding.message}",
        f"  {checked.size_bytes} bytes, {checked.digest}",
    ]
    if finding.needs is None:
        return "\n".join(lines)
    rows = [("FIELD", "NEEDED", "ALLOWED", "MARGIN", "")]
    for limit in msgspec.structs.fields(ModuleLimits):
        needed: int = getattr(finding.needs, limit.name)
        allowed: int = getattr(pool.spec.module_limits, limit.name)
        margin = allowed - needed
        rows.append((limit.encode_name, str(needed), str(allowed), str(margin), "" if margin >= 0 else "exceeded"))
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    for name, needed_text, allowed_text, margin_text, note in rows:
        line = (
            f"  {name:<{widths[0]}}  {needed_text:>{widths[1]}}  {allowed_text:>{widths[2]}}"
            f"  {margin_text:>{widths[3]}}  {note}"
        )
        lines.append(line.rstrip())
    if finding.needs.features:
        lines.append(f"  features: {', '.join(finding.needs.features)}")
    return "\n".join(lines)


def _cost(pool: InstancePool) -> dict[str, Any]:
    shape = region_shape(pool.spec)
    return {
        "name": pool.metadata.name,
        "slots": shape.slots,
        "backing": shape.backing.value,
        "guarded": shape.guarded,
        "slotBytes": shape.slot_bytes,
        "regionBytes": shape.region_bytes,
        "overheadBytesPerNode": overhead_bytes_per_node(pool.spec, shape),
    }


def _cost_text(pool: InstancePool) -> str:
    cost, limits = _cost(pool), pool.spec.module_limits
    memories = "memory" if limits.memories == 1 else "memories"
    return (
        f"pool {pool.metadata.name}: {cost['slots']} {'guarded' if cost['guarded'] else 'compact'} slots of "
        f"{Quantity(cost['slotBytes'])} ({limits.memories} {memories} of {limits.memory_pages} pages)\n"
        f"  per node: a region of {Quantity(cost['regionBytes'])} on {cost['backing']}, "
        f"and up to {_rounded(cost['overheadBytesPerNode'])} outside of it"
    )


def _rounded(size_bytes: int) -> str:
    return f"{-(-size_bytes // 2**20)}Mi"
