"""Which module a workload's present version means: pinned by its digest, or still to be found. Pure.

    loose    nothing of the version was ever admitted, or what was is refused now and runs nowhere. What an agent finds
             at the source counts, and it looks again and again: somebody may mend the module, or move the tag
    fixed    admitted: a version's digest stays, whatever becomes of its source

    loose -- an agent has inspected it, and nothing refuses it --> fixed
    fixed -- the pool's limits refuse it, and no node holds anything of it any more --> loose
    fixed -- an agent can't run it, no node holds anything of it, and its source has another one --> fixed, to that one

status.updatedRevision remembers which: it names the revision with the digest, or the one without. A version that was
run before and is still in the workload's history is fixed from the start, to the module that it ran.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from wasmpool_api.instance_pool_node import NodeWorkload, WorkloadState
from wasmpool_api.revisions import Revision, revision_of
from wasmpool_api.wasm_workload import ModuleSource, ModuleStatus, WasmWorkload
from wasmpool_operator.workload.reports import Place, Report
from wasmpool_operator.workload.revisions import Past


@dataclass(frozen=True, slots=True)
class Pin:
    """`module`: the one that is fixed, or the last one that was found.

    `sighting`: what the agent on `node` says of the source now; `found`: the module that it has before it, and does not
    refuse. Invariant: `fixed` implies that `module` is known, with its needs.
    """

    workload: WasmWorkload
    module: ModuleStatus | None
    fixed: bool
    sighting: NodeWorkload | None = None
    node: str = ""
    found: ModuleStatus | None = None

    @property
    def revision(self) -> Revision:
        """To be run where it is fixed, else to be inspected."""
        return self._pinned if self.fixed else revision_of(self.workload)

    @property
    def changeable(self) -> bool:
        """Whether another module may be at its source tomorrow."""
        return _changeable(self.workload.spec.module)

    def fix(self) -> "Pin":
        """The module that was found, for good."""
        return Pin(self.workload, self.found, fixed=True)

    def successor(self) -> "Pin | None":
        """With the module that is at its source now, if that is another one."""
        if self.found is None or self.module is None or self.found.digest == self.module.digest:
            return None
        return Pin(self.workload, self.found, False, self.sighting, self.node, self.found)

    def loosen(self) -> "Pin":
        """The same module, until another one is found."""
        return Pin(self.workload, self.module, fixed=False)

    def held(self, reports: Sequence[Report], places: Sequence[Place]) -> bool:
        """Whether some node has a slot of its revision, or may run it."""
        name = self._pinned.name
        return any(it.assignment.revision == name and it.assignment.slots for it in places) or any(
            it.entry.revision == name and (it.entry.used_slots or it.entry.state is WorkloadState.RUNNING)
            for it in reports
        )

    @property
    def _pinned(self) -> Revision:
        known = self.module or ModuleStatus()
        return revision_of(self.workload, known.digest, known.image)


def pin_of(
    workload: WasmWorkload, reports: Sequence[Report], places: Sequence[Place], pasts: Sequence[Past] = ()
) -> Pin:
    """As status remembers it, and as agents report it now. `pasts`: what the workload ran before."""
    known = workload.status.module
    remembered = known if known is not None and known.digest and known.needs is not None else None
    inspected, updated = revision_of(workload).name, workload.status.updated_revision
    fixed = remembered is not None and revision_of(workload, remembered.digest, remembered.image).name == updated
    if not fixed and updated != inspected:
        remembered = _run_before(workload, pasts)  # and not what status has, of an earlier version
        fixed = remembered is not None
    # NB: an agent may not have let go yet of an inspection that another one has taken over.
    asked = {it.member.name for it in places if it.assignment.inspect and it.assignment.revision == inspected}
    sightings = [it for it in reports if it.member.fresh and it.entry.revision == inspected]
    sightings.sort(key=lambda it: it.member.name not in asked)
    if not sightings:
        return Pin(workload, remembered, fixed)
    entry, node = sightings[0].entry, sightings[0].member.name
    there = entry.module if entry.module is not None and entry.module.digest and entry.module.needs else None
    found = there if entry.state is WorkloadState.INSPECTED else None
    if fixed:
        return Pin(workload, remembered, fixed, entry, node, found)
    if there is None and entry.state is WorkloadState.REFUSED:
        remembered = None  # something else is there now, and it can't be read
    return Pin(workload, there or remembered, fixed, entry, node, found)


def _run_before(workload: WasmWorkload, pasts: Sequence[Past]) -> ModuleStatus | None:
    """The module of this very version, if it is one that comes back."""
    for past in pasts:
        if revision_of(workload, past.module.digest, past.module.image).name == past.name:
            return past.module
    return None


def _changeable(source: ModuleSource) -> bool:
    return source.image is None or "@" not in source.image
