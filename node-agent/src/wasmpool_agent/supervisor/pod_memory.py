"""How the pod's memory is divided: what slots take, the agent's own, one compiler, and modules that are being read.

limit of the control group
|  slots: tables, code, stores; on base pages the region as well   what the operator added for them
|  supervisor, workers, the compiler before it has a module       OWN, EACH_WORKER, COMPILER
|  a compilation                                                  5/8 of the rest
|  modules in the supervisor's memory                             1/8 of the rest
|  what is left                                                   compiled code on its way, and what nobody foresaw
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from wasmpool_agent.compiler import DEFAULT_MEMORY_LIMIT_BYTES
from wasmpool_api.instance_pool import Backing, InstancePoolSpec
from wasmpool_api.quantities import Quantity
from wasmpool_api.region import RegionError, overhead_bytes_per_node, region_shape

_MIB: Final = 1024**2
OWN_BYTES: Final = 80 * _MIB
EACH_WORKER_BYTES: Final = 40 * _MIB
COMPILER_BYTES: Final = 35 * _MIB
LEAST_COMPILE_BYTES: Final = 96 * _MIB
LEAST_MODULE_BYTES: Final = 16 * _MIB
"""Even where the pod's memory leaves less: the examples, and what Go and TinyGo make, can be tried at least."""
MODULE_BYTES: Final = 256 * _MIB
UNLIMITED_BYTES: Final = 2**62
"""Control groups of the first version say a number near 2**63 where there is no limit."""
_CGROUPS: Final = Path("/sys/fs/cgroup")
_OWN_CGROUP: Final = Path("/proc/self/cgroup")


@dataclass(frozen=True, slots=True)
class PodMemory:
    """`limit_bytes`: of the whole pod, None without one. `compile_bytes`: for one compilation, beyond an idle compiler.

    `module_bytes`: for all modules that the supervisor has in memory at a time, and so for the largest.
    """

    limit_bytes: int | None
    compile_bytes: int
    module_bytes: int

    @classmethod
    def divided(cls, limit_bytes: int | None, spec: InstancePoolSpec, workers: int) -> Self:
        """Pure. `workers`: processes that run guests."""
        if limit_bytes is None:
            return cls(None, DEFAULT_MEMORY_LIMIT_BYTES, MODULE_BYTES)
        taken = _for_slots(spec) + OWN_BYTES + workers * EACH_WORKER_BYTES + COMPILER_BYTES
        rest = max(0, limit_bytes - taken)
        return cls(
            limit_bytes,
            max(LEAST_COMPILE_BYTES, rest * 5 // 8),
            min(MODULE_BYTES, max(LEAST_MODULE_BYTES, rest // 8)),
        )

    @property
    def hint(self) -> str:
        """What to change for more; empty without a limit."""
        if self.limit_bytes is None:
            return ""
        return (
            f"that is its part of the agent's pod, whose memory limit is {Quantity(self.limit_bytes)}; "
            "for more, raise the memory in spec.agent.resources of the pool"
        )


UNLIMITED: Final = PodMemory(None, DEFAULT_MEMORY_LIMIT_BYTES, MODULE_BYTES)


def memory_limit(cgroups: Path = _CGROUPS, own: Path = _OWN_CGROUP) -> int | None:
    """Of the control group that this process is in, of either version, and of those around it; the lowest, in bytes."""
    limits = [_limit(file) for directory, name in _places(cgroups, own) for file in _upwards(cgroups, directory, name)]
    return min((it for it in limits if it is not None), default=None)


def _for_slots(spec: InstancePoolSpec) -> int:
    """As the operator adds it to the pod's memory."""
    try:
        shape = region_shape(spec)
    except RegionError:
        return 0
    region = shape.region_bytes if shape.backing is Backing.BASE_PAGES else 0
    return overhead_bytes_per_node(spec, shape) + region


def _places(cgroups: Path, own: Path) -> list[tuple[Path, str]]:
    """Where this process's groups may be seen: by their path, or, in a container, as the root of what is mounted."""
    found = [(cgroups, "memory.max"), (cgroups / "memory", "memory.limit_in_bytes")]
    try:
        lines = own.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return found
    for line in lines:
        _, controllers, path = (*line.split(":", 2), "", "")[:3]
        inside = path.lstrip("/")
        if ".." in Path(inside).parts:
            continue
        if not controllers:
            found.append((cgroups / inside, "memory.max"))
        elif "memory" in controllers.split(","):
            found.append((cgroups / "memory" / inside, "memory.limit_in_bytes"))
    return found


def _upwards(top: Path, directory: Path, name: str) -> list[Path]:
    return [it / name for it in (directory, *directory.parents) if it == top or top in it.parents]


def _limit(file: Path) -> int | None:
    try:
        text = file.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return None
    return int(text) if text.isdigit() and int(text) < UNLIMITED_BYTES else None
