"""Huge pages of this machine, borrowed: added to what is there, and given back."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

HUGE_PAGE_BYTES = 2 * 1024**2
_POOL = Path("/sys/kernel/mm/hugepages/hugepages-2048kB")
_LOCK = Path("/tmp/wasmpool-hugepages.lock")  # noqa: S108 - agreed upon by everything that reserves pages here


def pages(name: str = "nr") -> int:
    """`nr`, `free`, `resv` or `surplus` huge pages of 2 MiB, now."""
    return int((_POOL / f"{name}_hugepages").read_text(encoding="ascii"))


def free_pages() -> int:
    """Pages that nobody has touched or been promised."""
    return pages("free") - pages("resv")


def _add(count: int) -> int:
    """Returns by how many it really changed."""
    with _LOCK.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        before = pages()
        (_POOL / "nr_hugepages").write_text(str(before + count), encoding="ascii")
        return pages() - before


@contextmanager
def borrowed_huge_pages(count: int) -> Iterator[None]:
    """`count` more pages of 2 MiB while it is entered. Skips (fails under CI) where that can't be."""
    missing = pytest.fail if os.environ.get("CI") == "true" else pytest.skip
    if os.geteuid() != 0 or not _POOL.exists():
        missing("reserving huge pages needs root and a kernel that has them")
    added = _add(count)
    try:
        if added < count:
            missing(f"{count} huge pages of 2 MiB are wanted, the kernel found memory for {added}")
        yield
    finally:
        _add(-added)
