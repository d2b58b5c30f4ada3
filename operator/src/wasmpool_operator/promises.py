"""Which slots of a node are promised: in its spec, or in an earlier spec that its agent may still be acting on."""

from collections.abc import Mapping

from wasmpool_api.instance_pool_node import InstancePoolNode
from wasmpool_api.placement import Claim

Slots = Mapping[Claim, int]


class Ledger:
    """Remembers the specs of InstancePoolNodes that their agents have not confirmed yet.

    It lives in memory. After a restart of the operator the history of an unconfirmed node is not known, and such a
    node takes nothing new until its agent confirms: within a second or two, where the agent works at all.
    """

    def __init__(self) -> None:
        self._specs: dict[str, dict[int, Slots]] = {}

    def observe(self, node: InstancePoolNode) -> None:
        """Call this with every state of a node that a plan is made on."""
        specs = self._specs.setdefault(node.metadata.uid, {})
        specs[node.metadata.generation] = spec_slots(node)
        for generation in [it for it in specs if it < node.status.observed_generation]:
            del specs[generation]

    def workloads(self, node: InstancePoolNode) -> frozenset[str] | None:
        """Uids of those that the agent may be running or listening for; None where nobody can know."""
        found = {assignment.uid for assignment in node.spec.assignments}
        found.update(entry.uid for entry in node.status.workloads)
        specs = self._specs.get(node.metadata.uid, {})
        for generation in range(max(1, node.status.observed_generation), node.metadata.generation):
            if generation not in specs:
                return None
            found.update(claim.uid for claim in specs[generation])
        return frozenset(found)

    def forget(self, keep: set[str]) -> None:
        """Drops every node whose uid is not in `keep`."""
        for uid in [uid for uid in self._specs if uid not in keep]:
            del self._specs[uid]

    def promised(self, node: InstancePoolNode) -> Slots | None:
        """The largest number of slots that the agent may be using per claim; None where nobody can know."""
        present = node.metadata.generation
        confirmed = node.status.observed_generation
        result = dict(spec_slots(node))
        for entry in node.status.workloads:
            _raise(result, Claim(entry.uid, entry.revision), entry.reserved_slots)
        specs = self._specs.get(node.metadata.uid, {})
        # NB: the confirmed spec counts too: after confirming it, the agent may have started what its status of that
        # moment did not list yet.
        for generation in range(max(1, confirmed), present):
            if generation not in specs:
                return None
            for claim, slots in specs[generation].items():
                _raise(result, claim, slots)
        return {claim: slots for claim, slots in result.items() if slots > 0}


def spec_slots(node: InstancePoolNode) -> Slots:
    """Slots per claim in the present spec."""
    result: dict[Claim, int] = {}
    for assignment in node.spec.assignments:
        if not assignment.inspect:
            claim = Claim(assignment.uid, assignment.revision)
            result[claim] = result.get(claim, 0) + assignment.slots
    return result


def _raise(result: dict[Claim, int], claim: Claim, slots: int) -> None:
    result[claim] = max(result.get(claim, 0), slots)
