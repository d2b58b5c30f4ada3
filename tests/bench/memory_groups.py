"""What a group of processes is charged: a memory cgroup of its own, of either version. Needs root."""

import os
import subprocess
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class Charge:
    """Bytes. `anonymous`: of the processes' own pages; `kernel`: page tables, sockets and the like on their behalf;
    `file`: mapped files and the page cache that they filled, memfds included."""

    anonymous: int
    kernel: int
    file: int

    @property
    def total(self) -> int:
        """All of it, huge pages excepted, which are charged elsewhere."""
        return self.anonymous + self.kernel + self.file

    def __sub__(self, other: "Charge") -> "Charge":
        return Charge(self.anonymous - other.anonymous, self.kernel - other.kernel, self.file - other.file)


class MemoryGroup:
    """A cgroup; what is started in it stays in it."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def start(self, command: Sequence[str], log: Path) -> subprocess.Popen[bytes]:
        """As a child of this process."""
        with log.open("wb") as out:
            # NB: by a shell that moves itself first, so that nothing is charged before.
            script = f'echo $$ > {self._path}/cgroup.procs && exec "$@"'
            return subprocess.Popen(["sh", "-c", script, "sh", *command], stdout=out, stderr=out)

    def charge(self) -> Charge:
        """As it is now."""
        stat = dict(line.split() for line in (self._path / "memory.stat").read_text().splitlines())
        if (self._path / "memory.current").exists():
            return Charge(int(stat["anon"]), int(stat["kernel"]), int(stat["file"]))
        kernel = int((self._path / "memory.kmem.usage_in_bytes").read_text())
        return Charge(int(stat["total_rss"]), kernel, int(stat["total_cache"]))


@contextmanager
def memory_group(name: str) -> Generator[MemoryGroup]:
    """Removed in the end; processes must have ended by then."""
    one = ROOT / "memory"
    path = (one if one.is_dir() else ROOT) / f"wasmpool-bench-{os.getpid()}-{name}"
    path.mkdir()
    try:
        yield MemoryGroup(path)
    finally:
        path.rmdir()
