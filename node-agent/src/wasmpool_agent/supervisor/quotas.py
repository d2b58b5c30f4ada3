"""The claims' reservations in the slot table, which holds workers to them."""

import logging
from collections.abc import Iterable

from wasmpool_agent.slots import QuotaRefusedError, SlotTable
from wasmpool_agent.supervisor.claims import Claim

log = logging.getLogger(__name__)


class Quotas:
    """Remembers what was set, for most rounds change nothing."""

    def __init__(self) -> None:
        self._set: dict[int, tuple[int, int]] = {}

    def carry_out(self, claims: Iterable[Claim], table: SlotTable) -> None:
        """Every claim's, and nobody else's. One that ends keeps what it still uses. What is refused is tried again."""
        wanted = {
            claim.workload_id: (claim.reserved, claim.assignment.burst if claim.assigned else 0)
            for claim in claims
            if not claim.assignment.inspect
        }
        for workload_id in [it for it in self._set if it not in wanted]:
            table.clear_quota(workload_id)
            del self._set[workload_id]
        changed = {it: quota for it, quota in wanted.items() if self._set.get(it) != quota}
        # NB: what shrinks first, for the table promises no slot twice.
        for workload_id in sorted(changed, key=lambda it: changed[it][0] - self._set.get(it, (0, 0))[0]):
            try:
                table.set_quota(workload_id, *changed[workload_id])
            except QuotaRefusedError as error:
                log.warning("workload %d: %s", workload_id, error)
            else:
                self._set[workload_id] = changed[workload_id]
