"""Modules and compiled code on disk. Both are only ever added whole, and can be lost without harm.

<cache>/modules/<sha256>          a module, checked against its digest whenever it is read
<cache>/compiled/<key>            compiled code; the key says all that it depends on
<cache>/downloads/<digest>.part   what has come of a download that is not whole yet

A file's modification time is when it was last used. Beyond `most_bytes` the longest unused go first.
"""

import hashlib
import os
import re
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

from wasmpool_agent.modules.sources import digest_of

_PREFIX: Final = "sha256:"
_DIGEST: Final = re.compile(r"sha256:[0-9a-f]{64}")
_UNFINISHED: Final = ".new-"


class Kind(StrEnum):
    """What a file of the cache is, and the directory that it is in."""

    MODULE = "modules"
    COMPILED = "compiled"
    DOWNLOAD = "downloads"


@dataclass(frozen=True, slots=True)
class _Entry:
    used: float
    size: int
    kind: Kind
    path: Path


def compiled_key(digest: str, settings: str, machine: str) -> str:
    """A name for compiled code. `settings`: of the compiler; `machine`: what the code may assume of the CPU."""
    return hashlib.sha256("\n".join((digest, settings, machine)).encode()).hexdigest()


def cpu_features(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """The instruction sets of the first CPU, as Linux names them; empty where it does not say."""
    try:
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    return next(
        (line.partition(":")[2].strip() for line in lines if line.lower().startswith(("flags", "features"))), ""
    )


class Store:
    """Owns the directories. `most_bytes`: over all of them. Raises OSError where the disk does."""

    def __init__(self, cache: Path, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._directories = {kind: cache / kind.value for kind in Kind}
        for directory in self._directories.values():
            directory.mkdir(parents=True, exist_ok=True)
            for leftover in directory.glob(f"{_UNFINISHED}*"):
                leftover.unlink(missing_ok=True)

    @property
    def downloads(self) -> Path:
        """For what comes from a registry, until it is whole and checked."""
        return self._directories[Kind.DOWNLOAD]

    def module(self, digest: str) -> bytes | None:
        """A module that was kept. One that is not what its name says is removed."""
        if _DIGEST.fullmatch(digest) is None:  # it comes from the API, and becomes a path
            return None
        path = self._module(digest)
        data = _read(path)
        if data is not None and digest_of(data) != digest:
            path.unlink(missing_ok=True)
            return None
        return data

    def keep_module(self, data: bytes) -> str:
        """Keeps it and gives its digest."""
        digest = digest_of(data)
        _write(self._module(digest), data)
        return digest

    def compiled(self, key: str) -> bytes | None:
        """Compiled code that was kept, with the digest that it was kept with; None where that does not fit any more."""
        path = self._compiled(key)
        data = _read(path)
        if data is None:
            return None
        digest, code = data[:32], data[32:]
        if hashlib.sha256(code).digest() != digest:
            path.unlink(missing_ok=True)
            return None
        return code

    def keep_compiled(self, key: str, code: bytes) -> None:
        """Keeps it under its key."""
        _write(self._compiled(key), hashlib.sha256(code).digest() + code)

    def drop_compiled(self, key: str) -> None:
        """A worker could not load it."""
        self._compiled(key).unlink(missing_ok=True)

    def prune(self, digests: Iterable[str], keys: Iterable[str]) -> Counter[Kind]:
        """Removes the longest unused beyond the bound, but none of these. Gives the numbers removed."""
        kept = {self._module(digest) for digest in digests} | {self._compiled(key) for key in keys}
        entries = list(self._entries())
        total = sum(entry.size for entry in entries)
        removed: Counter[Kind] = Counter()
        for entry in sorted(entries, key=lambda it: it.used):
            if total <= self._most_bytes:
                break
            if entry.path not in kept:
                entry.path.unlink(missing_ok=True)
                total -= entry.size
                removed[entry.kind] += 1
        return removed

    def sizes(self) -> Counter[Kind]:
        """Bytes on disk."""
        sizes: Counter[Kind] = Counter(dict.fromkeys(Kind, 0))
        for entry in self._entries():
            sizes[entry.kind] += entry.size
        return sizes

    def _entries(self) -> Iterator[_Entry]:
        for kind, directory in self._directories.items():
            for path in directory.iterdir():
                try:
                    found = path.stat()
                except FileNotFoundError:  # another thread finished or removed it
                    continue
                if not path.name.startswith(_UNFINISHED):
                    yield _Entry(found.st_mtime, found.st_size, kind, path)

    def _module(self, digest: str) -> Path:
        return self._directories[Kind.MODULE] / digest.removeprefix(_PREFIX)

    def _compiled(self, key: str) -> Path:
        return self._directories[Kind.COMPILED] / key


def _read(path: Path) -> bytes | None:
    try:
        data = path.read_bytes()
        os.utime(path)  # for prune: in use
    except FileNotFoundError:
        return None
    return data


def _write(path: Path, data: bytes) -> None:
    fd, name = tempfile.mkstemp(prefix=_UNFINISHED, dir=path.parent)
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
