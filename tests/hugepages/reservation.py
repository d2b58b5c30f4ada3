"""Huge pages of this machine, borrowed: added to what is there, and given back."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

HUGE_PAGE_BYTES = 2 * 1024**2
_POOLS = Path("/sys/kernel/mm/hugepages")
_LOCK = Path("/tmp/wasmpool-hugepages.lock")  # noqa: S108 - agreed upon by everything that reserves pages here


def _file(name: str, page_bytes: int) -> Path:
    return _POOLS / f"hugepages-{page_bytes // 1024}kB" / f"{name}_hugepages"


def pages(name: str = "nr", page_bytes: int = HUGE_PAGE_BYTES) -> int:
    """`nr`, `free`, `resv` or `surplus` huge pages, now."""
    return int(_file(name, page_bytes).read_text(encoding="ascii"))


def free_pages() -> int:
    """Pages that nobody has touched or been promised."""
    return pages("free") - pages("resv")


def _add(count: int, page_bytes: int) -> int:
    """Returns by how many it really changed."""
    with _LOCK.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        before = pages("nr", page_bytes)
        _file("nr", page_bytes).write_text(str(before + count), encoding="ascii")
        return pages("nr", page_bytes) - before


@contextmanager
def borrowed_huge_pages(count: int, page_bytes: int = HUGE_PAGE_BYTES) -> Iterator[None]:
    """`count` more pages while it is entered. Skips where that can't be; under CI it fails, for pages of 2 MiB."""
    in_ci = os.environ.get("CI") == "true" and page_bytes == HUGE_PAGE_BYTES
    missing = pytest.fail if in_ci else pytest.skip
    if os.geteuid() != 0 or not _file("nr", page_bytes).exists():
        missing("reserving huge pages needs root and a kernel that has them")
    added = _add(count, page_bytes)
    try:
        if added < count:
            missing(f"{count} huge pages of {page_bytes} bytes are wanted, the kernel found memory for {added}")
        yield
    finally:
        _add(-added, page_bytes)
