"""Whose the names are that Services, EndpointSlices and NetworkPolicies need. Nothing is adopted that others made.

What the operator made carries its labels and is watched. Others' objects are not: whether a name is free is looked up
right before something is made there, and again and again while it is somebody else's. Pure: `Names` collects what has
to be looked up before a plan can be carried out.
"""

from dataclasses import dataclass, field

from wasmpool_api.meta import MANAGED_BY, MANAGED_BY_LABEL, WASM_WORKLOAD, ObjectMeta
from wasmpool_operator.pool.observe import ObjectName, Observed
from wasmpool_operator.resources import ENDPOINT_SLICES, NETWORK_POLICIES, SERVICES
from wasmpool_operator.views import controlled_by


@dataclass(frozen=True, slots=True)
class Held:
    """What is at a name. `ours`: made for the owner that was asked for. `leftover`: made for one that is no more."""

    metadata: ObjectMeta | None = None
    ours: bool = False
    leftover: bool = False
    unknown: bool = False

    @property
    def usable(self) -> bool:
        """Whether the object may be made or changed."""
        return self.ours or (self.metadata is None and not self.unknown)

    @property
    def foreign(self) -> bool:
        """Whether it is somebody else's."""
        return self.metadata is not None and not self.ours and not self.leftover


@dataclass(slots=True)
class Names:
    """Over one snapshot. `to_look_up`: names that were asked for and are not known."""

    observed: Observed
    to_look_up: set[ObjectName] = field(default_factory=set[ObjectName])
    _known: dict[ObjectName, ObjectMeta] = field(init=False)
    _live: frozenset[str] = field(init=False)

    def __post_init__(self) -> None:
        observed = self.observed
        tables = (
            (SERVICES, [it.metadata for it in observed.services]),
            (ENDPOINT_SLICES, observed.endpoint_slices),
            (NETWORK_POLICIES, observed.network_policies),
        )
        self._known = {ObjectName(kind, it.namespace, it.name): it for kind, found in tables for it in found}
        self._live = frozenset(it.metadata.uid for it in observed.workloads)
        if observed.pool is not None:
            self._live |= {observed.pool.metadata.uid}

    def made(self, name: ObjectName) -> bool:
        """Whether the operator has made something there."""
        return name in self._known

    def held(self, name: ObjectName, owner: str) -> Held:
        """What is there. `owner`: uid of the object that is to control it."""
        known = self._known.get(name)
        if known is not None:
            ours = controlled_by(known, owner)
            return Held(known, ours=ours, leftover=not ours and leftover(known, self._live))
        lookup = self.observed.lookups.get(name)
        if lookup is None:
            self.to_look_up.add(name)
            return Held(unknown=True)
        return Held(lookup.metadata)


def leftover(metadata: ObjectMeta, live: frozenset[str]) -> bool:
    """Whether the operator made it for something of ours that is gone. `live`: uids of what there is."""
    if metadata.labels.get(MANAGED_BY_LABEL) != MANAGED_BY:
        return False
    controllers = [it for it in metadata.owner_references if it.controller]
    return any(it.api_version.startswith("wasmpool.dev/") and it.uid not in live for it in controllers)


def conflict(name: ObjectName, metadata: ObjectMeta) -> str:
    """What is in the way, and what to do about it."""
    owners = [it for it in metadata.owner_references if it.controller]
    owner = f"belongs to {owners[0].kind} {owners[0].name}" if owners else f"was not made for this {WASM_WORKLOAD}"
    return f"{name} exists and {owner}; wasmpool takes nothing over: remove it, or give the workload another name"
