"""What an allocator has done since its process began, as numbers that workers send and supervisors add up."""

from pathlib import Path

import msgspec


class AllocationCounts(msgspec.Struct, frozen=True, kw_only=True):
    """`taken`: slots; `affine`: those of them whose last tenant ran the same module; `exhausted`: no slot was free;
    `quota_reached`: the workload's quota allowed no more.

    `memories_refused`, `grown` and `grow_refused` are of memories in the region; Wasmtime's own are not counted.
    """

    taken: int = 0
    affine: int = 0
    exhausted: int = 0
    quota_reached: int = 0
    memories_refused: int = 0
    grown: int = 0
    grow_refused: int = 0

    def __sub__(self, earlier: "AllocationCounts") -> "AllocationCounts":
        """What has been added since."""
        return AllocationCounts(
            **{name: getattr(self, name) - getattr(earlier, name) for name in self.__struct_fields__}
        )


def count_mappings() -> int:
    """Of this process; vm.max_map_count says how many it can have."""
    return Path("/proc/self/maps").read_bytes().count(b"\n")
