"""Modules and compiled code on disk. Both are only ever added whole, and can be lost without harm.

<cache>/modules/<sha256>          a module, checked against its digest whenever it is read
<cache>/compiled/<key>            compiled code; the key says all that it depends on
"""

import hashlib
import os
import re
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from wasmpool_agent.modules.sources import digest_of

_PREFIX: Final = "sha256:"
_DIGEST: Final = re.compile(r"sha256:[0-9a-f]{64}")
MOST_BYTES: Final = 2 * 1024**3
"""Of modules, and of compiled code. Beyond it the oldest that nobody uses go."""


def compiled_key(digest: str, settings: str, machine: str) -> str:
    """A name for compiled code. `settings`: of the engine; `machine`: what the code may assume of the CPU."""
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
    """Owns the two directories. Raises OSError where the disk does."""

    def __init__(self, cache: Path) -> None:
        self._modules = cache / "modules"
        self._compiled = cache / "compiled"
        for directory in (self._modules, self._compiled):
            directory.mkdir(parents=True, exist_ok=True)
            for leftover in directory.glob(".new-*"):
                leftover.unlink(missing_ok=True)

    def module(self, digest: str) -> bytes | None:
        """A module that was kept. One that is not what its name says is removed."""
        if _DIGEST.fullmatch(digest) is None:  # it comes from the API, and becomes a path
            return None
        path = self._modules / digest.removeprefix(_PREFIX)
        data = _read(path)
        if data is not None and digest_of(data) != digest:
            path.unlink(missing_ok=True)
            return None
        return data

    def keep_module(self, data: bytes) -> str:
        """Keeps it and gives its digest."""
        digest = digest_of(data)
        _write(self._modules / digest.removeprefix(_PREFIX), data)
        return digest

    def compiled(self, key: str) -> bytes | None:
        """Compiled code that was kept, with the digest that it was kept with; None where that does not fit any more."""
        path = self._compiled / key
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
        _write(self._compiled / key, hashlib.sha256(code).digest() + code)

    def drop_compiled(self, key: str) -> None:
        """A worker could not load it."""
        (self._compiled / key).unlink(missing_ok=True)

    def prune(self, digests: Iterable[str], keys: Iterable[str], most_bytes: int = MOST_BYTES) -> int:
        """Removes the longest unused beyond `most_bytes`, but none of these. Gives the number removed."""
        kept = {digest.removeprefix(_PREFIX) for digest in digests}
        return _prune(self._modules, kept, most_bytes) + _prune(self._compiled, set(keys), most_bytes)


def _read(path: Path) -> bytes | None:
    try:
        data = path.read_bytes()
        os.utime(path)  # for prune: in use
    except FileNotFoundError:
        return None
    return data


def _write(path: Path, data: bytes) -> None:
    fd, name = tempfile.mkstemp(prefix=".new-", dir=path.parent)
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


def _prune(directory: Path, kept: set[str], most_bytes: int) -> int:
    files = [(path.stat().st_mtime, path.stat().st_size, path) for path in directory.iterdir()]
    total = sum(size for _, size, _ in files)
    removed = 0
    for _, size, path in sorted(files):
        if total <= most_bytes:
            break
        if path.name not in kept:
            path.unlink(missing_ok=True)
            total -= size
            removed += 1
    return removed
