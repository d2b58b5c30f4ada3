"""What the allocation layer refuses, as exceptions that carry their data. Imports no Wasmtime: anybody may catch them.

Exception
+-- EngineRefusedError    no engine can be made with these settings
+-- ModuleRefusedError    the module can never run in such slots
+-- NoFreeSlotError       not now
    +-- QuotaReachedError     not now for this workload: it has what its quota allows
"""

from wasmpool_agent.slots import Quota, SlotCounts


class EngineRefusedError(Exception):
    """No engine can be made with these settings; the message names the field, what is given and what is allowed."""


class ModuleRefusedError(Exception):
    """The module can never run in such slots, whatever the module limits say. `problems`: one sentence each."""

    def __init__(self, problems: tuple[str, ...]) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


class NoFreeSlotError(Exception):
    """There is no slot to have, now. `counts` says what has them; None if that is not the reason."""

    def __init__(self, counts: SlotCounts | None, message: str = "") -> None:
        if counts is not None:
            message = (
                f"no slot is free: of {counts.total}, {counts.used} are used, {counts.wiping} are being wiped, "
                f"{counts.quarantined} are quarantined"
            )
        super().__init__(message)
        self.counts = counts


class QuotaReachedError(NoFreeSlotError):
    """The workload uses all that it has reserved, and may or can borrow no more, now. `quota`: as of the refusal."""

    def __init__(self, quota: Quota) -> None:
        more = (
            f"all {quota.burst} that it may borrow"
            if quota.used >= quota.reserved + quota.burst
            else f"{quota.used - quota.reserved} of {quota.burst} that it may borrow, and {quota.borrowed} are lent of "
            f"the {quota.unreserved} that nobody has reserved"
        )
        super().__init__(None, f"the quota is reached: {quota.reserved} reserved slots are used, {more}")
        self.quota = quota
