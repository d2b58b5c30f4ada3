"""The least and the most of every number in a pool's spec, as the CustomResourceDefinition has them.

The API server checks them itself; this is for pools that never see one: those in files. tests/crds compares the two.
"""

from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple

from wasmpool_api.codec import encode
from wasmpool_api.instance_pool import InstancePoolSpec
from wasmpool_api.limits import MAX_MEMORY_PAGES
from wasmpool_api.quantities import Duration

LONGEST_REQUEST: Final = Duration(24 * 3600)
_MOST_OF_ANYTHING: Final = 1_000_000

BOUNDS: Final[Mapping[str, tuple[int, int]]] = {
    "instanceLimits.count": (1, 100_000),
    "moduleLimits.importedFunctions": (0, _MOST_OF_ANYTHING),
    "moduleLimits.importedTables": (0, 100),
    "moduleLimits.importedMemories": (0, 100),
    "moduleLimits.importedGlobals": (0, _MOST_OF_ANYTHING),
    "moduleLimits.types": (0, _MOST_OF_ANYTHING),
    "moduleLimits.functions": (0, _MOST_OF_ANYTHING),
    "moduleLimits.tables": (0, 100),
    "moduleLimits.memories": (1, 100),
    "moduleLimits.globals": (0, _MOST_OF_ANYTHING),
    "moduleLimits.tableElements": (0, 10_000_000),
    "moduleLimits.memoryPages": (1, MAX_MEMORY_PAGES),
    "componentLimits.coreInstances": (0, _MOST_OF_ANYTHING),
    "componentLimits.memories": (0, 100),
    "componentLimits.tables": (0, 10_000),
    "runtime.workers": (0, 1024),
}
"""Field of the spec, then the least and the most that it may be."""


class OutOfBounds(NamedTuple):
    """The field at `path` is `given`; `allowed` is a range."""

    path: str
    given: str
    allowed: str


def out_of_bounds(spec: InstancePoolSpec) -> Iterator[OutOfBounds]:
    """Every number of the spec that is less or more than it may be, in the order of BOUNDS. Pure."""
    groups = {
        "instanceLimits": encode(spec.instance_limits),
        "moduleLimits": encode(spec.module_limits),
        "componentLimits": encode(spec.component_limits),
        "runtime": encode(spec.runtime),
    }
    for path, (least, most) in BOUNDS.items():
        group, name = path.split(".")
        given = groups[group][name]
        if not least <= given <= most:
            yield OutOfBounds(f"spec.{path}", str(given), f"{least} to {most}")
    for index, quota in enumerate(spec.tenancy.quotas):
        if not 0 <= quota.slots < 2**31:
            yield OutOfBounds(f"spec.tenancy.quotas[{index}].slots", str(quota.slots), f"0 to {2**31 - 1}")
    if not 0 < spec.runtime.request_deadline <= LONGEST_REQUEST:
        yield OutOfBounds("spec.runtime.requestDeadline", str(spec.runtime.request_deadline), "more than 0s, to 24h,")
