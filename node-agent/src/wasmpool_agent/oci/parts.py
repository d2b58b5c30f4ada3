"""A download that is not whole yet: <directory>/<digest>.part, with - for the digest's colon.

It belongs to whoever holds its lock (flock), be it another process. What a killed one left is hashed and gone on from.
Raises OSError where the disk does.
"""

import asyncio
import fcntl
import hashlib
import os
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import BinaryIO, Final, Protocol, TypeVar

from wasmpool_agent.oci.manifest import Descriptor

LOCK_SECONDS: Final = 0.1
_CHUNK: Final = 1024 * 1024
_Result = TypeVar("_Result")


class _Hash(Protocol):
    def update(self, data: bytes, /) -> None: ...
    def hexdigest(self) -> str: ...


class Part:
    """Owns the file and its lock. Invariant between calls: the hash is of the first `size` bytes, and they are on disk.

    `mixed`: whether not all of it came in one answer, so that a wrong digest need not be the last one's fault.
    `source`: whose the last bytes are.
    """

    def __init__(self, path: Path, file: BinaryIO, described: Descriptor) -> None:
        self._path = path
        self._file = file
        self._described = described
        self._hash = self._new_hash()
        self.size = 0
        self.mixed = False
        self.source = ""

    @property
    def whole(self) -> bool:
        """Whether all bytes are there, right or wrong."""
        return self.size >= self._described.size

    @property
    def right(self) -> bool:
        """Whether they are what the digest says."""
        hexadecimal = self._described.digest.partition(":")[2]
        return self.size == self._described.size and self._hash.hexdigest() == hexadecimal

    @property
    def file(self) -> BinaryIO:
        """To read from."""
        return self._file

    async def append(self, data: bytes) -> None:
        """Writes and hashes."""
        await in_thread(lambda: self._append(data))

    async def restart(self) -> None:
        """Forgets what is there."""
        self.mixed = False
        await in_thread(lambda: self._cut(0))

    async def content(self) -> bytes:
        """All of it."""
        return await in_thread(self._content)

    def remove(self) -> None:
        """It has been used, or is of no use."""
        self._path.unlink(missing_ok=True)

    def _append(self, data: bytes) -> None:
        try:
            self._file.write(data)
            self._file.flush()
        except OSError:
            self._cut(0)
            raise
        self._hash.update(data)
        self.size += len(data)

    def _resume(self) -> None:
        self._file.seek(0)
        while self.size <= self._described.size and (chunk := self._file.read(_CHUNK)):
            self._hash.update(chunk)
            self.size += len(chunk)
        if self.size > self._described.size:
            self._cut(0)
        self.mixed = self.size > 0

    def _cut(self, size: int) -> None:
        self._file.seek(size)
        self._file.truncate()
        self._hash, self.size = self._new_hash(), size

    def _content(self) -> bytes:
        self._file.seek(0)
        return self._file.read()

    def _new_hash(self) -> _Hash:
        return hashlib.new(self._described.digest.partition(":")[0])

    @classmethod
    @asynccontextmanager
    async def held(
        cls, directory: Path, described: Descriptor, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    ) -> AsyncGenerator["Part"]:
        """The part of this blob, once nobody else has it."""
        path = directory / f"{described.digest.replace(':', '-')}.part"
        while (file := await in_thread(lambda: _locked(path))) is None:
            await sleep(LOCK_SECONDS)
        try:
            part = cls(path, file, described)
            await in_thread(part._resume)
            yield part
        finally:
            file.close()  # the lock goes with it


def _locked(path: Path) -> BinaryIO | None:
    """None: somebody else has it, or removed it meanwhile."""
    file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600), "r+b")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # NB: who had the lock before may have removed the file, and then the next has made another by this name
        if os.path.samestat(os.fstat(file.fileno()), path.stat()):
            return file
    except (BlockingIOError, FileNotFoundError):
        pass
    except BaseException:
        file.close()
        raise
    file.close()
    return None


async def in_thread(function: Callable[[], _Result]) -> _Result:
    """Outside of the event loop. When cancelled, it waits for the thread: that still has the file."""
    running = asyncio.get_running_loop().run_in_executor(None, function)
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        await asyncio.wait([running])
        raise
