"""What one guest may see of the world."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum, IntFlag
from struct import Struct
from types import MappingProxyType
from typing import Final, Protocol

from wasmpool_agent.wasi.errno import Errno, WasiError
from wasmpool_agent.wasi.files import File, Tree
from wasmpool_agent.wasi.memory import GuestMemory
from wasmpool_agent.wasmtime_async import ExportedMemory, Wait

_FDSTAT: Final = Struct("<BxHxxxxQQ")
NOTHING_MOUNTED: Final[Mapping[str, Tree]] = MappingProxyType({})


DESCRIPTORS_MAX: Final = 1024
"""Open at the same time."""


class FileType(IntEnum):
    """`filetype`. Pipes have none of their own; they are UNKNOWN, so that nothing takes them for a tty."""

    UNKNOWN = 0
    DIRECTORY = 3
    REGULAR_FILE = 4


class Rights:
    """`rights`, as far as anything here has them, or has to refuse them. Plain integers, for guests give any."""

    FD_DATASYNC: Final = 1 << 0
    FD_READ: Final = 1 << 1
    FD_SEEK: Final = 1 << 2
    FD_FDSTAT_SET_FLAGS: Final = 1 << 3
    FD_SYNC: Final = 1 << 4
    FD_TELL: Final = 1 << 5
    FD_WRITE: Final = 1 << 6
    FD_ADVISE: Final = 1 << 7
    PATH_OPEN: Final = 1 << 13
    FD_READDIR: Final = 1 << 14
    PATH_READLINK: Final = 1 << 15
    PATH_FILESTAT_GET: Final = 1 << 18
    FD_FILESTAT_GET: Final = 1 << 21
    POLL_FD_READWRITE: Final = 1 << 27


FILE_RIGHTS: Final = (
    Rights.FD_DATASYNC
    | Rights.FD_READ
    | Rights.FD_SEEK
    | Rights.FD_FDSTAT_SET_FLAGS
    | Rights.FD_SYNC
    | Rights.FD_TELL
    | Rights.FD_ADVISE
    | Rights.FD_FILESTAT_GET
    | Rights.POLL_FD_READWRITE
)
DIRECTORY_RIGHTS: Final = (
    Rights.FD_FDSTAT_SET_FLAGS
    | Rights.FD_SYNC
    | Rights.PATH_OPEN
    | Rights.FD_READDIR
    | Rights.PATH_READLINK
    | Rights.PATH_FILESTAT_GET
    | Rights.FD_FILESTAT_GET
)
INHERITED_RIGHTS: Final = DIRECTORY_RIGHTS | FILE_RIGHTS | Rights.FD_WRITE
"""What may be asked for below a directory. FD_WRITE is among them although no file gives it: libc asks for no more than
stands here, so without it a file that is opened to be written would open, and fail at its first write only."""


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

    rights: int = Rights.FD_READ | Rights.POLL_FD_READWRITE
    inheriting: int = 0
    flags: int = 0


@dataclass(slots=True)
class OutputStream:
    """Standard output or standard error."""

    output: Output
    rights: int = Rights.FD_WRITE | Rights.POLL_FD_READWRITE
    inheriting: int = 0
    flags: int = FdFlags.APPEND


@dataclass(slots=True)
class OpenFile:
    """A file, to be read. `position`: of the next byte, and it may lie beyond the end."""

    file: File
    rights: int = FILE_RIGHTS
    inheriting: int = 0
    flags: int = 0
    position: int = 0


Entry = tuple[bytes, FileType, int]
"""Of a directory: name, type and number."""


@dataclass(slots=True)
class OpenDirectory:
    """A directory. `mount`: where a preopened one is, else None."""

    tree: Tree
    rights: int = DIRECTORY_RIGHTS
    inheriting: int = INHERITED_RIGHTS
    flags: int = 0
    mount: bytes | None = None
    listing: list[Entry] | None = None
    """Once somebody has asked: a directory does not change."""


Descriptor = EmptyInput | OutputStream | OpenFile | OpenDirectory


@dataclass(frozen=True, slots=True)
class Clocks:
    """`realtime_ns` since 1970; `monotonic_ns` from an arbitrary origin; `cpu_ns` that the guest itself has used.

    `monotonic_ns` must be the clock of the event loop, for poll_oneoff's timers run on that.
    """

    realtime_ns: Callable[[], int]
    monotonic_ns: Callable[[], int]
    cpu_ns: Callable[[], int]


class Guest:
    """The state behind preview 1 for one instance. `exit_code` is set once the guest has called proc_exit.

    `preopens`: trees by where they are mounted; their descriptors follow the three streams, in this order.
    """

    def __init__(
        self,
        *,
        args: Sequence[str],
        env: Mapping[str, str],
        stdout: Output,
        stderr: Output,
        clocks: Clocks,
        preopens: Mapping[str, Tree] = NOTHING_MOUNTED,
    ) -> None:
        self.exported_memory = ExportedMemory()
        self.memory = GuestMemory(self.exported_memory.extent)
        self.args = _packed(args)
        self.env = _packed([f"{name}={value}" for name, value in env.items()])
        self.clocks = clocks
        self.exit_code: int | None = None
        self.descriptors: dict[int, Descriptor] = {0: EmptyInput(), 1: OutputStream(stdout), 2: OutputStream(stderr)}
        for mount, tree in preopens.items():
            self.open(OpenDirectory(tree, mount=mount.encode()))

    def descriptor(self, number: int) -> Descriptor:
        """Raises WasiError(BAD_DESCRIPTOR)."""
        try:
            return self.descriptors[number]
        except KeyError:
            raise WasiError(Errno.BAD_DESCRIPTOR) from None

    def open(self, descriptor: Descriptor) -> int:
        """Its number: the lowest that is free. Raises WasiError(TOO_MANY_DESCRIPTORS)."""
        for number in range(DESCRIPTORS_MAX):
            if number not in self.descriptors:
                self.descriptors[number] = descriptor
                return number
        raise WasiError(Errno.TOO_MANY_DESCRIPTORS)

    def fdstat(self, number: int) -> bytes:
        """The 24 bytes of `fdstat`."""
        descriptor = self.descriptor(number)
        return _FDSTAT.pack(type_of(descriptor), descriptor.flags, descriptor.rights, descriptor.inheriting)


def type_of(descriptor: Descriptor) -> FileType:
    """Of what is open."""
    match descriptor:
        case OpenFile():
            return FileType.REGULAR_FILE
        case OpenDirectory():
            return FileType.DIRECTORY
        case _:
            return FileType.UNKNOWN


def _packed(strings: Sequence[str]) -> tuple[bytes, ...]:
    """Each as bytes with the final NUL that C wants. One inside would cut the string short, so it ends there."""
    return tuple(text.encode("utf-8", "surrogateescape").partition(b"\0")[0] + b"\0" for text in strings)
