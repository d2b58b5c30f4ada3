"""What a cluster with nodes changes on this machine, and how it is given back. Needs root.

Before anything is changed it is written down in /run, which is as short-lived as the changes themselves: one file for
each cluster. So the next `up` or `down` gives back what a killed one left, and clusters don't take each other's things.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import subprocess
from collections.abc import Generator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Final

from tests.cluster.console import ClusterError, say

_RECORDS: Final = Path("/run/wasmpool-cluster")
_NR_HUGE_PAGES: Final = Path("/proc/sys/vm/nr_hugepages")
HUGE_PAGE_BYTES: Final = 2 * 1024**2
CGROUPS: Final = Path("/sys/fs/cgroup")
_HUGETLB: Final = CGROUPS / "hugetlb"


@dataclass(frozen=True)
class Changes:
    """What was changed for the cluster in `state_dir`, and is not given back yet."""

    state_dir: str
    huge_pages: int = 0
    """Of 2 MiB, added to those that the machine had."""
    mounted_hugetlb: bool = False
    directories: list[str] = field(default_factory=list[str])
    """Made as places to mount on; empty from outside."""
    cgroups: list[str] = field(default_factory=list[str])
    """Names below the root of every hierarchy."""
    network_namespaces: list[str] = field(default_factory=list[str])
    """`net:[number]` of each, to see later whether somebody still has it."""


@contextlib.contextmanager
def alone() -> Generator[None]:
    """One `up` or `down` with nodes at a time on this machine: wait for another one to end."""
    _RECORDS.mkdir(mode=0o700, exist_ok=True)
    with (_RECORDS / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("waiting for another `up` or `down` on this machine to end ...")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def key(state_dir: Path) -> str:
    """Tells this machine's clusters apart; 8 hexadecimal digits."""
    return hashlib.sha256(str(state_dir).encode()).hexdigest()[:8]


def recorded(state_dir: Path) -> Changes | None:
    """What this cluster has changed and nobody has given back."""
    return _read(_place(state_dir))


def all_recorded() -> list[Changes]:
    """Of every cluster with nodes on this machine, alive or not."""
    return [changes for path in sorted(_RECORDS.glob("*.json")) if (changes := _read(path))]


def record(changes: Changes) -> Changes:
    """Write it down, before it is done."""
    path = _place(Path(changes.state_dir))
    half_written = path.with_suffix(".new")
    half_written.write_text(json.dumps(asdict(changes)) + "\n")
    half_written.replace(path)
    return changes


def forget(changes: Changes) -> None:
    """Everything is given back."""
    _place(Path(changes.state_dir)).unlink(missing_ok=True)


def add_huge_pages(changes: Changes, count: int) -> Changes:
    """So many pages of 2 MiB more than there are. Raises ClusterError, with the numbers, where the kernel has fewer."""
    before = huge_pages()
    changes = record(replace(changes, huge_pages=count))
    _set_huge_pages(before + count)
    if huge_pages() < before + count:
        # NB: memory is there, but in pieces
        with contextlib.suppress(OSError):
            Path("/proc/sys/vm/compact_memory").write_text("1\n")
        _set_huge_pages(before + count)
    given = huge_pages() - before
    if given < count:
        _set_huge_pages(before)
        record(replace(changes, huge_pages=0))
        raise ClusterError(
            f"--huge-pages {count}: the kernel gave {given} pages of 2 MiB; {count * 2} MiB in whole pages are wanted, "
            f"{available_mebibytes()} MiB of memory are available. Ask for fewer, or free some memory"
        )
    return changes


def huge_pages() -> int:
    """Of 2 MiB, of this machine."""
    return int(_NR_HUGE_PAGES.read_text())


def available_mebibytes() -> int:
    """Memory that can be had without swapping."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    return next(int(line.split()[1]) // 1024 for line in lines if line.startswith("MemAvailable:"))


def has_unified_cgroups() -> bool:
    """Version 2 alone, as opposed to version 1 or a mixture."""
    return (CGROUPS / "cgroup.controllers").exists()


def mount_hugetlb(changes: Changes) -> Changes:
    """The controller that limits huge pages, where nobody has mounted it. Nothing to do with cgroups of version 2."""
    if has_unified_cgroups() or _HUGETLB.is_mount():
        return changes
    if not any(line.split()[0] == "hugetlb" for line in Path("/proc/cgroups").read_text().splitlines()):
        raise ClusterError(
            "this kernel has no hugetlb controller (CONFIG_CGROUP_HUGETLB): no node could limit huge pages"
        )
    changes = record(replace(changes, mounted_hugetlb=True))
    _HUGETLB.mkdir(exist_ok=True)
    _run("mount", "-t", "cgroup", "-o", "hugetlb", "cgroup", str(_HUGETLB))
    return changes


def make_directories(changes: Changes, wanted: list[Path]) -> Changes:
    """Those that are not there, with their parents."""
    missing: list[Path] = []
    for directory in wanted:
        missing += [path for path in (*reversed(directory.parents), directory) if not path.exists()]
    changes = record(replace(changes, directories=[*changes.directories, *dict.fromkeys(map(str, missing))]))
    for path in missing:
        path.mkdir(exist_ok=True)
    return changes


def give_back(changes: Changes) -> Changes:
    """Undo it; what is still to be undone. Idempotent; nothing of the cluster may run any more."""
    if changes.huge_pages:
        # NB: subtract, don't restore: others may have asked for pages or given some back meanwhile
        wanted = max(0, huge_pages() - changes.huge_pages)
        _set_huge_pages(wanted)
        if huge_pages() <= wanted:
            changes = record(replace(changes, huge_pages=0))
    others = [other for other in all_recorded() if other.state_dir != changes.state_dir]
    if others:
        # What this one made for itself serves the others as well: the last one removes it.
        heir = others[0]
        made = list(dict.fromkeys([*heir.directories, *changes.directories]))
        record(replace(heir, mounted_hugetlb=heir.mounted_hugetlb or changes.mounted_hugetlb, directories=made))
        return record(replace(changes, mounted_hugetlb=False, directories=[]))
    if changes.mounted_hugetlb:
        if _HUGETLB.is_mount():
            _run("umount", str(_HUGETLB))
        with contextlib.suppress(FileNotFoundError):
            _HUGETLB.rmdir()
    for directory in reversed(changes.directories):
        with contextlib.suppress(OSError):  # gone, or somebody else has put something into it
            Path(directory).rmdir()
    return changes


def leftovers(changes: Changes) -> list[str]:
    """What `give_back` did not manage to give back, in words."""
    left: list[str] = []
    if changes.huge_pages:
        left.append(f"vm.nr_hugepages is {huge_pages()}, {changes.huge_pages} of which were to be given back")
    if changes.mounted_hugetlb and _HUGETLB.is_mount():
        left.append(f"{_HUGETLB} is still mounted")
    mounts = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    left += [f"{path} is still mounted" for path in mounts if Path(path).is_relative_to(changes.state_dir)]
    left += [f"directory {path} is still there" for path in changes.directories if Path(path).is_dir()]
    held = set(changes.network_namespaces) & _network_namespaces()
    left += [f"network namespace {name} is still there" for name in sorted(held)]
    return left


def _place(state_dir: Path) -> Path:
    return _RECORDS / f"{key(state_dir)}.json"


def _read(path: Path) -> Changes | None:
    try:
        return Changes(**json.loads(path.read_text()))
    except (FileNotFoundError, PermissionError, ValueError, TypeError):
        return None


def _network_namespaces() -> set[str]:
    found: set[str] = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with contextlib.suppress(OSError):
                found.add(str((entry / "ns" / "net").readlink()))
    return found


def _set_huge_pages(count: int) -> None:
    try:
        _NR_HUGE_PAGES.write_text(f"{count}\n")
    except OSError as error:
        raise ClusterError(f"vm.nr_hugepages can't be written: {os.strerror(error.errno or 0)}") from error


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise ClusterError(f"{' '.join(command)}: {done.stderr.strip()}")
