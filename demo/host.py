"""What the demo needs to know of the machine: huge pages, memory, disk. Reads only. Standard library only."""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Final

MIB: Final = 1024 * 1024


@dataclass(frozen=True)
class HugePages:
    """The machine's pages of the default huge-page size, and that size in bytes."""

    total: int
    free: int
    page_bytes: int

    @property
    def total_mib(self) -> int:
        """All of them in MiB."""
        return self.total * self.page_bytes // MIB


def meminfo(path: Path = Path("/proc/meminfo")) -> dict[str, int]:
    """/proc/meminfo by name, in the units that it uses (KiB for sizes, counts for HugePages_*)."""
    return {
        name: int(rest.split()[0])
        for name, _, rest in (line.partition(":") for line in path.read_text().splitlines())
        if rest.strip()
    }


def huge_pages() -> HugePages:
    """The present state."""
    info = meminfo()
    return HugePages(
        total=info.get("HugePages_Total", 0),
        free=info.get("HugePages_Free", 0),
        page_bytes=info.get("Hugepagesize", 2048) * 1024,
    )


def cache_directory() -> Path:
    """Where built binaries and images are kept, outside the checkout."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "wasmpool"


def free_disk_mib(path: Path) -> int:
    """Free MiB of the file system that holds `path` or its nearest existing parent."""
    while not path.exists():
        path = path.parent
    return shutil.disk_usage(path).free // MIB


def available_memory_mib() -> int:
    """Memory that can be had without swapping."""
    return meminfo().get("MemAvailable", 0) // 1024
