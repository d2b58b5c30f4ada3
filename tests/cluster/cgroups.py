"""A node's share of this machine: one cgroup in every hierarchy, below which its kubelet makes those of its pods."""

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from tests.cluster.console import ClusterError
from tests.cluster.machine import CGROUPS, HUGE_PAGE_BYTES, has_unified_cgroups

_CONTROLLERS: Final = ("cpuset", "cpu", "io", "memory", "hugetlb", "pids")


def create(name: str, huge_pages: int) -> None:
    """Make a node's cgroups; together its pods can reserve `huge_pages` pages of 2 MiB."""
    if has_unified_cgroups():
        _create_unified(CGROUPS / name, huge_pages * HUGE_PAGE_BYTES)
        return
    for hierarchy in _hierarchies():
        group = hierarchy / name
        group.mkdir(exist_ok=True)
        for share in ("cpuset.cpus", "cpuset.mems"):
            if (group / share).exists():
                (group / share).write_text((hierarchy / share).read_text())
    limit = CGROUPS / "hugetlb" / name / "hugetlb.2MB.rsvd.limit_in_bytes"
    limit.write_text(str(huge_pages * HUGE_PAGE_BYTES))


def remove(name: str, *, seconds: float = 10) -> None:
    """All of this name, with what is below. Raises ClusterError where one stays, which means that a process does."""
    deadline = time.monotonic() + seconds
    while left := existing(name):
        for group in left:
            for directory in (*sorted((path for path in group.rglob("*") if path.is_dir()), reverse=True), group):
                with contextlib.suppress(OSError):
                    directory.rmdir()
        if time.monotonic() > deadline:
            raise ClusterError(f"cgroups {', '.join(map(str, left))} are still in use after {seconds:.0f} s")
        time.sleep(0.02)


def existing(name: str) -> list[Path]:
    """The cgroups of this name that are there, in all hierarchies."""
    roots = [CGROUPS, *(path for path in CGROUPS.iterdir() if path.is_dir())]
    return [root / name for root in roots if (root / name).is_dir()]


def _hierarchies() -> Iterator[Path]:
    """Of version 1. The one of version 2 beside them has no controllers that a pod could be limited with."""
    return (path for path in CGROUPS.iterdir() if (path / "cgroup.procs").exists() and path.name != "unified")


def _create_unified(group: Path, huge_page_bytes: int) -> None:
    offered = (CGROUPS / "cgroup.controllers").read_text().split()
    if "hugetlb" not in offered:
        raise ClusterError(f"the root cgroup offers no hugetlb controller, only {' '.join(offered)}")
    wanted = " ".join(f"+{name}" for name in _CONTROLLERS if name in offered)
    (CGROUPS / "cgroup.subtree_control").write_text(wanted)
    group.mkdir(exist_ok=True)
    (group / "cgroup.subtree_control").write_text(wanted)
    (group / "hugetlb.2MB.rsvd.max").write_text(str(huge_page_bytes))
