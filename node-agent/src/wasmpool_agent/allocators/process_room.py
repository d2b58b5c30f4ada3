"""What one process can have of address space and of mappings. Pools that may need more are refused with the numbers.

A process that has no mapping left is ended by what needs the next: Wasmtime by a thread's signal stack, a guarded slot
by unmapping what a guest has grown by. Slots are dealt to whichever worker asks, so one may come to hold all of them.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

_MAP_COUNT: Final = Path("/proc/sys/vm/max_map_count")
_FOR_THE_REST: Final = 2000
STACK_MAPPINGS: Final = 2
"""Of an asynchronous guest: what it uses, and the guard below."""


@dataclass(frozen=True, slots=True)
class ProcessRoom:
    """`mappings`: vm.max_map_count; `address_space`: bytes in one piece.

    Two thirds of 128 TiB lie in one piece below a position-independent program: 21,727 memories were had, not 21,728.
    """

    mappings: int
    address_space: int = 85 * 1024**4

    @classmethod
    def here(cls) -> "ProcessRoom":
        """Of this machine."""
        try:
            return cls(mappings=int(_MAP_COUNT.read_text(encoding="ascii")))
        except OSError:
            return cls(mappings=65530)

    def slots_of(self, mappings: int) -> int:
        """How many slots that take so many mappings each there is room for, beside the program itself."""
        return max(0, (self.mappings - _FOR_THE_REST) // mappings)
