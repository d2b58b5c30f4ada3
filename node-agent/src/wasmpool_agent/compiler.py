"""Compiles modules in child processes with limits. This side never imports wasmtime; `compiler_child` is the other.

The compiler gets a module that nobody has run: it may take for ever, take all memory, or crash. Then only the child
does, and the reason says which it was. What comes back is compiled code in a memfd that is sealed before its digest is
taken, so that whoever maps it later can rely on both.

NB: every descriptor here has one owner; one that a thread uses is closed only once the thread has ended.
"""

import asyncio
import fcntl
import hashlib
import mmap
import os
import signal
import sys
from asyncio.subprocess import PIPE
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import msgspec

from wasmpool_agent.threads import in_thread

DEFAULT_TIMEOUT_SECONDS: Final = 60.0
DEFAULT_MEMORY_LIMIT_BYTES: Final = 1024**3
"""Where no pod's memory says less."""
_SEALS: Final = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
_ENVIRONMENT: Final = ("PATH", "LD_LIBRARY_PATH", "PYTHONPATH", "LANG", "LC_ALL")
_OUT_OF_MEMORY: Final = ("memory allocation of", "MemoryError", "Cannot allocate memory", "failed to spawn thread")


def out_of_memory(text: str) -> bool:
    """Whether these last words of a compiler, or of Wasmtime, are about memory."""
    return any(sign in text for sign in _OUT_OF_MEMORY)


class CompileReason(StrEnum):
    """Why there is no compiled code. The first three are the module's own fault and stay true; the rest may pass."""

    MODULE_INVALID = "ModuleInvalid"
    UNSUPPORTED_FEATURE = "UnsupportedFeature"
    UNSUPPORTED_IMPORT = "UnsupportedImport"
    TIME_LIMIT = "CompileTimeLimit"
    MEMORY_LIMIT = "CompileMemoryLimit"
    CRASHED = "CompilerCrashed"

    @property
    def permanent(self) -> bool:
        """Whether compiling the same module again can't end otherwise."""
        return self in {self.MODULE_INVALID, self.UNSUPPORTED_FEATURE, self.UNSUPPORTED_IMPORT}


class CompileFailed(Exception):  # noqa: N818 - it says what happened
    """There is no compiled code, and why."""

    def __init__(self, reason: CompileReason, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


class Report(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the child says. `settings`: of its engine, see settings_key."""

    settings: str = ""
    reason: CompileReason | None = None
    message: str = ""


@dataclass(slots=True)
class Compiled:
    """Compiled code; owns `fd`, a sealed memfd. `size` in bytes, `sha256` in hex, `settings` is the engine's key."""

    fd: int
    size: int
    sha256: str
    settings: str
    seconds: float

    def close(self) -> None:
        """Idempotent."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


@dataclass(frozen=True, slots=True)
class Sealed:
    """A memfd that nobody can change, with its digest; `fd` is the caller's to close."""

    fd: int
    size: int
    sha256: str


def seal(fd: int) -> Sealed:
    """Seals a memfd that is not mapped writably anywhere, and takes its digest. Raises OSError; `fd` stays open."""
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALS)
    size = os.fstat(fd).st_size
    if not size:
        return Sealed(fd, 0, hashlib.sha256().hexdigest())
    with mmap.mmap(fd, size, prot=mmap.PROT_READ, flags=mmap.MAP_SHARED) as content:
        return Sealed(fd, size, hashlib.sha256(content).hexdigest())


def memfd(name: str, data: bytes | memoryview = b"") -> int:
    """An anonymous file with this content that can be sealed, not inheritable."""
    fd = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        left = memoryview(data)
        while left:
            left = left[os.write(fd, left) :]
    except BaseException:
        os.close(fd)
        raise
    return fd


async def compile_module(
    wasm: bytes | memoryview,
    pool_file: Path,
    *,
    backing: str = "",
    timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS,
    memory_limit_bytes: int = DEFAULT_MEMORY_LIMIT_BYTES,
) -> Compiled:
    """As `compile_file`, of a module in memory."""
    in_fd = await in_thread(lambda: memfd("wasmpool-module", wasm), os.close)
    try:
        return await compile_file(
            in_fd, pool_file, backing=backing, timeout_seconds=timeout_seconds, memory_limit_bytes=memory_limit_bytes
        )
    finally:
        os.close(in_fd)


async def compile_file(
    in_fd: int,
    pool_file: Path,
    *,
    backing: str = "",
    timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS,
    memory_limit_bytes: int = DEFAULT_MEMORY_LIMIT_BYTES,
) -> Compiled:
    """Code for the engines of that pool. `in_fd`: the module, a regular file or memfd; it stays the caller's.

    `timeout_seconds` is wall time. Raises CompileFailed, OSError. Cancelled, it ends the child first.
    """
    begun = asyncio.get_running_loop().time()
    out_fd = memfd("wasmpool-artifact")
    try:
        report = await _run_child(
            pool_file,
            backing,
            ("--in-fd", str(in_fd), "--out-fd", str(out_fd)),
            (in_fd, out_fd),
            timeout_seconds,
            memory_limit_bytes,
        )
        sealed = await in_thread(lambda: seal(out_fd))
        seconds = asyncio.get_running_loop().time() - begun
        return Compiled(sealed.fd, sealed.size, sealed.sha256, report.settings, seconds)
    except BaseException:
        os.close(out_fd)
        raise


async def engine_settings(pool_file: Path, *, backing: str = "", timeout_seconds: float = 20.0) -> str:
    """What compiled code must have been made with to run here: part of a cache's key. Raises CompileFailed, OSError."""
    report = await _run_child(pool_file, backing, (), (), timeout_seconds, DEFAULT_MEMORY_LIMIT_BYTES)
    return report.settings


async def _run_child(
    pool_file: Path,
    backing: str,
    arguments: tuple[str, ...],
    fds: tuple[int, ...],
    timeout_seconds: float,
    memory_limit_bytes: int,
) -> Report:
    # CPU time is bounded too, should this process be stopped while the child goes on: it has all CPUs.
    cpu_seconds = int(timeout_seconds * (os.cpu_count() or 1)) + 1
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "wasmpool_agent.compiler_child",
        "--pool-file",
        str(pool_file),
        f"--backing={backing}",
        f"--memory-limit={memory_limit_bytes}",
        f"--cpu-seconds={cpu_seconds}",
        f"--supervisor-pid={os.getpid()}",
        *arguments,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=PIPE,
        stderr=PIPE,
        pass_fds=fds,
        env={name: os.environ[name] for name in _ENVIRONMENT if name in os.environ},
    )
    try:
        async with asyncio.timeout(timeout_seconds):
            stdout, stderr = await child.communicate()
    except TimeoutError:
        raise CompileFailed(
            CompileReason.TIME_LIMIT, f"compiling took more than {timeout_seconds:g} s, which is what is allowed"
        ) from None
    finally:
        if child.returncode is None:
            child.kill()
            await child.wait()
    return _outcome(
        child.returncode or 0, stdout, stderr.decode("utf-8", "replace"), timeout_seconds, memory_limit_bytes
    )


def _outcome(status: int, stdout: bytes, stderr: str, timeout_seconds: float, memory_limit_bytes: int) -> Report:
    """Pure: what the child's end means."""
    try:
        report = msgspec.json.decode(stdout, type=Report)
    except msgspec.DecodeError:
        report = None
    if status == 0 and report is not None and report.reason is None:
        return report
    if report is not None and report.reason is not None:
        message = report.message or _too_much(memory_limit_bytes)
        raise CompileFailed(report.reason, message)
    if out_of_memory(stderr):
        raise CompileFailed(CompileReason.MEMORY_LIMIT, _too_much(memory_limit_bytes))
    if status == -signal.SIGKILL:  # not by us: that is told as it is done
        raise CompileFailed(
            CompileReason.MEMORY_LIMIT,
            "the compiler was ended by signal 9, as Linux does where memory is at its end; "
            f"{memory_limit_bytes} bytes are what it is allowed",
        )
    if status == -signal.SIGXCPU:
        raise CompileFailed(
            CompileReason.TIME_LIMIT, f"compiling used more CPU time than {timeout_seconds:g} s of all CPUs"
        )
    ended = f"by signal {-status}" if status < 0 else f"with status {status}"
    last = stderr.strip().splitlines()[-1:] or ["it said nothing"]
    raise CompileFailed(CompileReason.CRASHED, f"the compiler ended {ended}: {last[0][:500]}")


def _too_much(limit_bytes: int) -> str:
    return f"compiling needs more than {limit_bytes} bytes of memory, which is what is allowed"
