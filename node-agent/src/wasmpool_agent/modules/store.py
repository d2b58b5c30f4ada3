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
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

from wasmpool_agent.modules.sources import digest_of

_PREFIX: Final = "sha256:"
_DIGEST: Final = re.compile(r"sha256:[0-9a-f]{64}")
_UNFINISHED: Final = ".new-"
_CHUNK: Final = 1024 * 1024
SURVEY_SECONDS: Final = 30.0
"""For so long the sizes are as they were found, and what was kept since; downloads grow and go without a word."""


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


@dataclass(frozen=True, slots=True)
class Pruned:
    """What was removed, and the bytes on disk after that."""

    removed: Counter[Kind]
    sizes: Counter[Kind]


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
    """Owns the directories. `most_bytes`: over all of them. Raises OSError where the disk does.

    Its methods may be called in any thread. Invariant: `_sizes` is what the last look at the disk found, and what was
    kept since.
    """

    def __init__(self, cache: Path, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._directories = {kind: cache / kind.value for kind in Kind}
        self._lock = threading.Lock()
        self._sizes: Counter[Kind] = Counter()
        self._surveyed = -SURVEY_SECONDS
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
        path = self._module(digest)
        data = _read(path) if path is not None else None
        if path is not None and data is not None and digest_of(data) != digest:
            path.unlink(missing_ok=True)
            return None
        return data

    def module_bytes(self, digest: str) -> int | None:
        """The size of a module that was kept."""
        path = self._module(digest)
        try:
            return path.stat().st_size if path is not None else None
        except FileNotFoundError:
            return None

    def open_module(self, digest: str) -> int | None:
        """The same, read once for its digest, as a descriptor of its file; it is the caller's."""
        path = self._module(digest)
        fd = _open(path) if path is not None else None
        if path is None or fd is None:
            return None
        try:
            if f"{_PREFIX}{_copied(fd, None)}" == digest:
                os.lseek(fd, 0, os.SEEK_SET)
                return fd
            path.unlink(missing_ok=True)
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)
        return None

    def keep_module(self, data: bytes) -> str:
        """Keeps it and gives its digest."""
        digest = digest_of(data)

        def write(fd: int) -> None:
            _write_all(fd, data)

        self._write(Kind.MODULE, digest.removeprefix(_PREFIX), write)
        return digest

    def compiled(self, key: str, out_fd: int) -> bool:
        """Whether compiled code was kept, with the digest that it was kept with: it is in `out_fd` then.

        NB: what does not fit its digest is in there too; with False, nobody may use it.
        """
        path = self._compiled(key)
        fd = _open(path)
        if fd is None:
            return False
        try:
            digest = os.read(fd, 32)
            if digest.hex() == _copied(fd, out_fd):
                return True
        finally:
            os.close(fd)
        path.unlink(missing_ok=True)
        return False

    def keep_compiled(self, key: str, fd: int, sha256: str) -> None:
        """Keeps it under its key. `sha256`, in hex: of all that can be read from the beginning of `fd`."""

        def write(to: int) -> None:
            _write_all(to, bytes.fromhex(sha256))
            offset = 0
            while chunk := os.pread(fd, _CHUNK, offset):
                _write_all(to, chunk)
                offset += len(chunk)

        self._write(Kind.COMPILED, key, write)

    def drop_compiled(self, key: str) -> None:
        """A worker could not load it."""
        self._compiled(key).unlink(missing_ok=True)

    def prune(self, digests: Iterable[str], keys: Iterable[str]) -> Pruned:
        """Removes the longest unused beyond the bound, but none of these.

        Looks at every file only where the bound may be exceeded, or the last look was `SURVEY_SECONDS` ago.
        """
        with self._lock:
            now = time.monotonic()
            if self._sizes.total() <= self._most_bytes and now < self._surveyed + SURVEY_SECONDS:
                return Pruned(Counter(), self._sizes.copy())
            kept = {self._module(digest) for digest in digests} | {self._compiled(key) for key in keys}
            entries = list(self._entries())
            sizes: Counter[Kind] = Counter(dict.fromkeys(Kind, 0))
            for entry in entries:
                sizes[entry.kind] += entry.size
            removed: Counter[Kind] = Counter()
            for entry in sorted(entries, key=lambda it: it.used):
                if sizes.total() <= self._most_bytes:
                    break
                if entry.path not in kept:
                    entry.path.unlink(missing_ok=True)
                    sizes[entry.kind] -= entry.size
                    removed[entry.kind] += 1
            self._sizes, self._surveyed = sizes, now
            return Pruned(removed, sizes.copy())

    def _entries(self) -> Iterator[_Entry]:
        for kind, directory in self._directories.items():
            for path in directory.iterdir():
                try:
                    found = path.stat()
                except FileNotFoundError:  # another thread finished or removed it
                    continue
                if not path.name.startswith(_UNFINISHED):
                    yield _Entry(found.st_mtime, found.st_size, kind, path)

    def _module(self, digest: str) -> Path | None:
        if _DIGEST.fullmatch(digest) is None:  # it comes from the API, and becomes a path
            return None
        return self._directories[Kind.MODULE] / digest.removeprefix(_PREFIX)

    def _compiled(self, key: str) -> Path:
        return self._directories[Kind.COMPILED] / key

    def _write(self, kind: Kind, name: str, write: Callable[[int], None]) -> None:
        path = self._directories[kind] / name
        fd, new = tempfile.mkstemp(prefix=_UNFINISHED, dir=path.parent)
        try:
            try:
                write(fd)
                os.fsync(fd)
                size = os.fstat(fd).st_size
            finally:
                os.close(fd)
            Path(new).replace(path)
        except BaseException:
            Path(new).unlink(missing_ok=True)
            raise
        with self._lock:
            self._sizes[kind] += size
        directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)


def _read(path: Path) -> bytes | None:
    try:
        data = path.read_bytes()
        os.utime(path)  # for prune: in use
    except FileNotFoundError:
        return None
    return data


def _open(path: Path) -> int | None:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        with suppress(FileNotFoundError):  # removed meanwhile; what is open stays readable
            os.utime(path)
    except FileNotFoundError:
        return None
    return fd


def _copied(fd: int, out_fd: int | None) -> str:
    """From here to the end, to the other one if there is one. Gives the digest in hex."""
    digest = hashlib.sha256()
    while chunk := os.read(fd, _CHUNK):
        digest.update(chunk)
        if out_fd is not None:
            _write_all(out_fd, chunk)
    return digest.hexdigest()


def _write_all(fd: int, data: bytes) -> None:
    left = memoryview(data)
    while left:
        left = left[os.write(fd, left) :]
