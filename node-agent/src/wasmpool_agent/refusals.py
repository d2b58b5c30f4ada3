"""What the allocation layer refuses, as exceptions that carry their data. Imports no Wasmtime: anybody may catch them.

Exception
+-- EngineRefusedError    no engine can be made with these settings
+-- ModuleRefusedError    the module can never run in such slots
+-- NoFreeSlotError       not now
"""

from wasmpool_agent.slots import SlotCounts


class EngineRefusedError(Exception):
    """No engine can be made with these settings; the message names the field, what is given and what is allowed."""


class ModuleRefusedError(Exception):
    """The module can never run in such slots, whatever the module limits say. `problems`: one sentence each."""

    def __init__(self, problems: tuple[str, ...]) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


class NoFreeSlotError(Exception):
    """All slots are taken, now. `counts` says by what."""

    def __init__(self, counts: SlotCounts) -> None:
        super().__init__(
            f"no slot is free: of {counts.total}, {counts.used} are used, {counts.wiping} are being wiped, "
            f"{counts.quarantined} are quarantined"
        )
        self.counts = counts
