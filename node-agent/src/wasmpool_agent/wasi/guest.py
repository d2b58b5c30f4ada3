"""What one guest may see of the world."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum, IntFlag
from struct import Struct
from typing import Final, Protocol

from wasmpool_agent.wasi.errno import Errno, WasiError
from wasmpool_agent.wasi.memory import GuestMemory
from wasmpool_agent.wasmtime_async import ExportedMemory, Wait

_FDSTAT: Final = Struct("<BxHxxxxQQ")


class FileType(IntEnum):
    """`filetype`. Pipes have none of their own; they are UNKNOWN, so that nothing takes them for a tty."""

    UNKNOWN = 0


class Rights(IntFlag):
    """`rights`, as far as standard streams have any."""

    FD_READ = 1 << 1
    FD_WRITE = 1 << 6
    POLL_FD_READWRITE = 1 << 27


class FdFlags(IntFlag):
    """`fdflags`."""

    APPEND = 1
    NONBLOCK = 4


class Output(Protocol):
    """Where a standard stream of a guest goes."""

    def write(self, data: bytes) -> Wait | None:
        """Takes all of it; gives what to wait for before the guest should go on, if the reader is slow."""
        ...


@dataclass(slots=True)
class EmptyInput:
    """Standard input: always at its end."""

    rights: Rights = Rights.FD_READ | Rights.POLL_FD_READWRITE
    flags: int = 0


@dataclass(slots=True)
class OutputStream:
    """Standard output or standard error."""

    output: Output
    rights: Rights = Rights.FD_WRITE | Rights.POLL_FD_READWRITE
    flags: int = FdFlags.APPEND


Descriptor = EmptyInput | OutputStream


@dataclass(frozen=True, slots=True)
class Clocks:
    """`realtime_ns` since 1970; `monotonic_ns` from an arbitrary origin; `cpu_ns` that the guest itself has used.

    `monotonic_ns` must be the clock of the event loop, for poll_oneoff's timers run on that.
    """

    realtime_ns: Callable[[], int]
    monotonic_ns: Callable[[], int]
    cpu_ns: Callable[[], int]


class Guest:
    """The state behind preview 1 for one instance. `exit_code` is set once the guest has called proc_exit."""

    def __init__(
        self, *, args: Sequence[str], env: Mapping[str, str], stdout: Output, stderr: Output, clocks: Clocks
    ) -> None:
        self.exported_memory = ExportedMemory()
        self.memory = GuestMemory(self.exported_memory.extent)
        self.args = _packed(args)
        self.env = _packed([f"{name}={value}" for name, value in env.items()])
        self.clocks = clocks
        self.exit_code: int | None = None
        self.descriptors: dict[int, Descriptor] = {0: EmptyInput(), 1: OutputStream(stdout), 2: OutputStream(stderr)}

    def descriptor(self, number: int) -> Descriptor:
        """Raises WasiError(BAD_DESCRIPTOR)."""
        try:
            return self.descriptors[number]
        except KeyError:
            raise WasiError(Errno.BAD_DESCRIPTOR) from None

    def fdstat(self, number: int) -> bytes:
        """The 24 bytes of `fdstat`."""
        descriptor = self.descriptor(number)
        return _FDSTAT.pack(FileType.UNKNOWN, descriptor.flags, descriptor.rights, 0)


def _packed(strings: Sequence[str]) -> tuple[bytes, ...]:
    """Each as bytes with the final NUL that C wants. One inside would cut the string short, so it ends there."""
    return tuple(text.encode("utf-8", "surrogateescape").partition(b"\0")[0] + b"\0" for text in strings)
