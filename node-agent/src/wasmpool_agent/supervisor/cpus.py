"""How many CPUs this process may use: its affinity and the quota of its control group."""

import os
from pathlib import Path
from typing import Final

_CGROUP: Final = Path("/sys/fs/cgroup")


def quota_cpus_rounded_up(cpu_max: str) -> int | None:
    """From a control group's cpu.max ("150000 100000"); None without a limit."""
    quota, _, period = cpu_max.strip().partition(" ")
    if not quota.isdigit() or not period.isdigit() or int(period) == 0:
        return None
    return max(1, -(-int(quota) // int(period)))


def usable_cpus(cgroup: Path = _CGROUP) -> int:
    """At least 1."""
    cpus = len(os.sched_getaffinity(0))
    try:
        quota = quota_cpus_rounded_up((cgroup / "cpu.max").read_text(encoding="ascii"))
    except (OSError, UnicodeDecodeError):
        quota = None
    return max(1, min(cpus, quota) if quota is not None else cpus)
