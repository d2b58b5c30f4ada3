"""A download that is not whole yet, in a file whose name says for whom, from where and of what it is: see `held`.

What one tenant's registry has sent is never gone on from for another's, so that nobody completes what he could not get.
It belongs to whoever holds its lock (flock), be it another process. What a killed one left is hashed and gone on from.
Raises OSError where the disk does.
"""

import asyncio
import fcntl
import hashlib
import os
import threading
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final, Protocol, TypeVar

from wasmpool_agent.oci.errors import PullError, TooLargeError
from wasmpool_agent.oci.manifest import Descriptor

LOCK_SECONDS: Final = 0.1
STALE_SECONDS: Final = 24 * 3600.0
_SUFFIX: Final = ".part"
_CHUNK: Final = 1024 * 1024
_Result = TypeVar("_Result")


class _Hash(Protocol):
    def update(self, data: bytes, /) -> None: ...
    def hexdigest(self) -> str: ...


@dataclass(frozen=True, slots=True)
class Origin:
    """`scope`: for whom, as the caller tells tenants apart."""

    registry: str
    repository: str
    scope: str

    def file_name(self, described: Descriptor) -> str:
        """Different for whatever differs."""
        whose = "\n".join((self.scope, self.registry, self.repository, described.digest, str(described.size)))
        return f"{hashlib.sha256(whose.encode()).hexdigest()}{_SUFFIX}"


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
        cls,
        directory: Path,
        described: Descriptor,
        origin: Origin,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> AsyncGenerator["Part"]:
        """The part of this blob, once nobody else has it. It stays where it may be gone on from, and else does not."""
        path = directory / origin.file_name(described)
        while (file := await in_thread(lambda: _locked(path))) is None:
            await sleep(LOCK_SECONDS)
        try:
            part = cls(path, file, described)
            await in_thread(part._resume)
            yield part
        except PullError as error:
            if not error.temporary:
                path.unlink(missing_ok=True)
            raise
        finally:
            with suppress(FileNotFoundError):
                if not os.fstat(file.fileno()).st_size:
                    path.unlink()
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
        while not running.done():
            with suppress(asyncio.CancelledError):  # once is enough; the first is passed on
                await asyncio.wait([running])
        raise


async def unpacking(work: Callable[[Callable[[], None]], _Result], seconds: float) -> _Result:
    """In a thread, which ends soon after whoever waits has gone, or the time is over. Raises TooLargeError then.

    `work` calls what it is given between two pieces.
    """
    gone = threading.Event()
    end = time.monotonic() + seconds

    def go_on() -> None:
        if gone.is_set():
            raise asyncio.CancelledError
        if time.monotonic() > end:
            raise TooLargeError(f"unpacking it took more than {seconds:g} s, which is what is allowed")

    running = asyncio.get_running_loop().run_in_executor(None, work, go_on)
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        gone.set()
        while not running.done():
            with suppress(asyncio.CancelledError):
                await asyncio.wait([running])
        raise


def remove_stale(directory: Path, now: float, seconds: float = STALE_SECONDS) -> None:
    """Parts that nobody has gone on with for so long, and empty ones. For a start: nobody must be at work there.

    `now`: seconds since 1970, as file times are.
    """
    oldest = now - seconds
    for path in directory.glob(f"*{_SUFFIX}"):
        with suppress(FileNotFoundError):
            found = path.stat()
            if found.st_mtime < oldest or not found.st_size:
                path.unlink()
