"""The region: the memory of all slots of a node, reserved once by the supervisor and mapped by every worker.

A region of huge pages is a memfd whose pages have all been touched before anybody is told of it: from then on neither
a page fault nor a shortage can happen. On base pages the memfd takes memory only as it is used.
"""

import errno
import os
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from wasmpool_agent import _native
from wasmpool_api.instance_pool import Backing
from wasmpool_api.reasons import RegionReason
from wasmpool_api.region import RegionShape

_POPULATE_STEP_BYTES: Final = 64 * 1024**2
HUGE_PAGES: Final = Path("/sys/kernel/mm/hugepages")
"""A directory for each size that the node has."""
_CGROUP: Final = Path("/sys/fs/cgroup")


class ReserveError(Exception):
    """The region can't be had. `reason` is the one for the node's status; the message has both numbers."""

    def __init__(self, reason: RegionReason, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


class SlotNotCleanError(Exception):
    """A slot that must be all zeros is not. `offset` is that of its first other byte, from the slot's start."""

    def __init__(self, index: int, offset: int) -> None:
        super().__init__(f"slot {index} is not clean: the byte at offset {offset} is not zero")
        self.index = index
        self.offset = offset


class Region:
    """One mapping of the region in this process, and its descriptor, which it owns."""

    def __init__(self, fd: int, shape: RegionShape, native: _native.Region) -> None:
        """Not for callers: `reserve` makes a region, `attach` maps it in another process."""
        self._fd = fd
        self.shape = shape
        self.native = native

    @classmethod
    def reserve(
        cls,
        shape: RegionShape,
        on_progress: Callable[[int, int], None] = lambda _done, _total: None,
    ) -> Self:
        """Makes the memfd and, on huge pages, touches every page; `on_progress` gets pages done and pages in all.

        Raises ReserveError.
        """
        total = shape.region_bytes // shape.page_bytes
        try:
            fd = _native.memfd("wasmpool-region", shape.region_bytes, shape.page_bytes)
        except OSError as error:
            raise _refusal(shape, error) from error
        try:
            native = _native.Region(fd, shape.region_bytes)
        except OSError as error:
            os.close(fd)
            raise _refusal(shape, error) from error
        region = cls(fd, shape, native)
        if shape.backing is Backing.BASE_PAGES:
            on_progress(total, total)
            return region
        try:
            step = max(_POPULATE_STEP_BYTES, shape.page_bytes)
            for offset in range(0, shape.region_bytes, step):
                length = min(step, shape.region_bytes - offset)
                native.populate(offset, length)
                on_progress((offset + length) // shape.page_bytes, total)
        except OSError as error:
            region.close()
            raise _refusal(shape, error) from error
        except BaseException:
            region.close()
            raise
        return region

    @classmethod
    def attach(cls, fd: int, shape: RegionShape) -> Self:
        """Maps a region that another process reserved. Takes over the descriptor. Raises OSError."""
        return cls(fd, shape, _native.Region(fd, shape.region_bytes))

    @property
    def fd(self) -> int:
        """The memfd; valid until `close`."""
        return self._fd

    def prove_clean(self, index: int) -> None:
        """Reads the whole slot; raises SlotNotCleanError unless every byte is zero."""
        start = self.shape.slot_offset(index)
        found = self.native.first_dirty(start, self.shape.slot_bytes)
        if found is not None:
            raise SlotNotCleanError(index, found - start)

    def close(self) -> None:
        """Unmaps it here, as soon as no engine uses it any more; may be called again."""
        self.native.close()
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def read_int(path: Path) -> int | None:
    """A number of the kernel's; None where it has no such file."""
    try:
        return int(path.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None


def _cgroup_limit_pages(page_bytes: int) -> int | None:
    """Pages that this process's control group may have; None without a limit, or without a control group to read."""
    name = f"{page_bytes // 1024**3}GB" if page_bytes >= 1024**3 else f"{page_bytes // 1024**2}MB"
    limits = [read_int(_CGROUP / f"hugetlb.{name}.{kind}") for kind in ("rsvd.max", "max")]
    known = [limit // page_bytes for limit in limits if limit is not None]
    return min(known, default=None)


def _refusal(shape: RegionShape, error: OSError) -> ReserveError:
    """Says why the kernel refused, with the numbers it had at hand."""
    wanted = shape.region_bytes // shape.page_bytes
    if shape.backing is Backing.BASE_PAGES:
        return ReserveError(
            RegionReason.RESERVE_FAILED,
            f"allocation.backing {shape.backing}: {shape.region_bytes} bytes are wanted: {error.strerror}",
        )
    pages = f"pages of {shape.page_bytes // 1024**2} MiB"
    pool = HUGE_PAGES / f"hugepages-{shape.page_bytes // 1024}kB"
    total, unused, promised, more = (
        read_int(pool / f"{name}_hugepages") for name in ("nr", "free", "resv", "nr_overcommit")
    )
    if error.errno in {errno.ENODEV, errno.ENOSYS, errno.EINVAL} or not (total or more):
        return ReserveError(
            RegionReason.HUGE_PAGES_NOT_CONFIGURED,
            f"allocation.backing {shape.backing}: {wanted} {pages} are wanted, the node has none: "
            + ("its kernel has no such page size" if total is None else "vm.nr_hugepages of that size is 0"),
        )
    if error.errno in {errno.ENOMEM, errno.EFAULT}:
        limit = _cgroup_limit_pages(shape.page_bytes)
        limited = f"; this pod may have {limit}" if limit is not None and limit < wanted else ""
        return ReserveError(
            RegionReason.INSUFFICIENT_HUGE_PAGES,
            f"allocation.backing {shape.backing}: {wanted} {pages} are wanted, "
            f"{(unused or 0) - (promised or 0)} of the node's {total} are free{limited}",
        )
    return ReserveError(
        RegionReason.RESERVE_FAILED,
        f"allocation.backing {shape.backing}: {wanted} {pages} are wanted: {error.strerror} (errno {error.errno})",
    )
