"""What supervisor and worker say to each other: tagged messages over one SOCK_SEQPACKET socketpair per worker.

One message is one packet of JSON, so that there is no framing to get wrong; file descriptors travel beside it by
SCM_RIGHTS. Neither wasmtime nor kubernetes is imported here, for both sides use it.

    supervisor -> worker    LoadModule (+ one fd), Start, Stop, Drop, Shutdown
    worker -> supervisor    Ready, ModuleLoaded | ModuleFailed, Started, Exited, Stats, Fault

The end of a worker, however it comes, is seen as the end of its socket (`ChannelClosed`).
"""

import array
import asyncio
import os
import socket
from collections import deque
from collections.abc import Sequence
from enum import StrEnum
from typing import Final, Generic, TypeVar

import msgspec

from wasmpool_agent.allocation_counts import AllocationCounts
from wasmpool_agent.store_limits import StoreLimits

PROTOCOL: Final = 1
"""Raised with every change that the other side would not understand."""
MAX_MESSAGE_BYTES: Final = 128 * 1024
_REST_OF_A_START_BYTES: Final = 8 * 1024
"""A packet has to fit into the socket's send buffer, which Linux caps at 208 KiB unless told otherwise."""
MAX_BACKTRACE_CHARS: Final = 16 * 1024
MAX_TEXT_CHARS: Final = 4 * 1024
_MAX_FDS: Final = 4


class ProtocolError(Exception):
    """The other side sent something that is not a message of this protocol, or speaks another version of it."""


class MessageTooLarge(ProtocolError):  # noqa: N818 - a refusal, not a failure
    """A message would not fit into one packet."""


class ChannelClosed(Exception):  # noqa: N818 - it says what happened
    """The other side has gone."""


class Result(StrEnum):
    """How an instance ended.

    `error`: it ended by itself with an exit code other than 0, or could not be made (then there is no exit code and the
    message says why). `no_slot`: nothing ran, for no slot was free.
    """

    SUCCESS = "success"
    ERROR = "error"
    TRAP = "trap"
    DEADLINE = "deadline"
    STOPPED = "stopped"
    NO_SLOT = "no_slot"


class LoadReason(StrEnum):
    """Why a worker refused an artifact."""

    CORRUPT = "Corrupt"
    INCOMPATIBLE = "Incompatible"
    UNSUPPORTED_IMPORT = "UnsupportedImport"


class LoadModule(msgspec.Struct, frozen=True, tag="LoadModule", kw_only=True):
    """Makes an artifact known to the worker; the packet carries one descriptor, a sealed memfd or a file.

    `key` is what later messages call it; `size` in bytes; `sha256` in hex, of the artifact (not of the module).
    """

    key: str
    size: int
    sha256: str


class Start(msgspec.Struct, frozen=True, tag="Start", kw_only=True):
    """Runs one instance. `instance` is chosen by the supervisor and never used twice in one worker.

    `workload` is "namespace/name". `deadline_seconds` counts from here to the end of the run, instantiation included;
    None means for ever. `limits`: None for those of the worker's pool file.
    """

    instance: int
    workload_id: int
    workload: str
    revision: str
    artifact: str
    index: int | None = None
    args: tuple[str, ...] = ()
    env: tuple[tuple[str, str], ...] = ()
    entrypoint: str = "_start"
    deadline_seconds: float | None = None
    limits: StoreLimits | None = None


class Stop(msgspec.Struct, frozen=True, tag="Stop", kw_only=True):
    """Ends an instance `grace_seconds` from now, if it has not ended by itself. Unknown instances are ignored."""

    instance: int
    grace_seconds: float = 0.0


class Drop(msgspec.Struct, frozen=True, tag="Drop", kw_only=True):
    """Forgets an artifact; instances that run it go on. Unknown keys are ignored."""

    key: str


class Shutdown(msgspec.Struct, frozen=True, tag="Shutdown", kw_only=True):
    """No instance is started any more; those that run are stopped after `grace_seconds`; then the worker ends."""

    grace_seconds: float = 0.0


class Ready(msgspec.Struct, frozen=True, tag="Ready", kw_only=True):
    """The first message of every worker: its engine stands, the region is mapped."""

    pid: int
    protocol: int = PROTOCOL
    wasmtime_version: str = ""


class ModuleLoaded(msgspec.Struct, frozen=True, tag="ModuleLoaded", kw_only=True):
    """The artifact can be started."""

    key: str
    seconds: float


class ModuleFailed(msgspec.Struct, frozen=True, tag="ModuleFailed", kw_only=True):
    """The artifact can't be started in this worker. The worker goes on."""

    key: str
    reason: LoadReason
    message: str


class Started(msgspec.Struct, frozen=True, tag="Started", kw_only=True):
    """The instance has a slot and its memory is initialised; its entry point is called next."""

    instance: int
    slot: int
    instantiate_seconds: float


class Exited(msgspec.Struct, frozen=True, tag="Exited", kw_only=True):
    """The last word about an instance; its slot has been wiped and is free. Every Start is answered by exactly one.

    `seconds`: from the receipt of Start; `cpu_seconds`: of them, in guest code. `wiped_bytes` and `wipe_seconds`: what
    cleaning its slot took.
    """

    instance: int
    result: Result
    exit_code: int | None = None
    message: str = ""
    backtrace: str = ""
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    wiped_bytes: int = 0
    wipe_seconds: float = 0.0


class Stats(msgspec.Struct, frozen=True, tag="Stats", kw_only=True):
    """Counts since the worker's start, except `running`, `modules` and `mappings`. Once a second, when one changed.

    `mappings`: of the process, as it was at most half a minute ago.
    """

    running: int
    modules: int
    started: int
    exited: int
    lines: int
    lines_dropped: int
    mappings: int
    allocations: AllocationCounts


class Fault(msgspec.Struct, frozen=True, tag="Fault", kw_only=True):
    """The worker ends because of this; its socket closes next."""

    message: str


ToWorker = LoadModule | Start | Stop | Drop | Shutdown
FromWorker = Ready | ModuleLoaded | ModuleFailed | Started | Exited | Stats | Fault

Out = TypeVar("Out", bound=msgspec.Struct)
In = TypeVar("In", bound=msgspec.Struct)


def start_fits(args: Sequence[str], env: Sequence[tuple[str, str]]) -> tuple[int, int]:
    """Bytes that arguments and environment take in a Start, and how many they may."""
    return len(msgspec.json.encode((args, env))), MAX_MESSAGE_BYTES - _REST_OF_A_START_BYTES


class Channel(Generic[Out, In]):
    """One end of the socketpair, used from one event loop.

    Invariant: packets leave in the order of `post`; what could not leave at once waits in `_waiting`, and a writer is
    registered with the loop exactly while `_waiting` is not empty.
    NB: close it on its loop, for the loop watches the descriptor.
    """

    def __init__(self, sock: socket.socket, decoder: msgspec.json.Decoder[In]) -> None:
        sock.setblocking(False)
        self._sock = sock
        self._decoder = decoder
        self._encoder = msgspec.json.Encoder()
        self._waiting: deque[tuple[bytes, tuple[int, ...]]] = deque()
        self._sent: asyncio.Event = asyncio.Event()
        self._sent.set()
        self._closed = False

    def post(self, message: Out, fds: tuple[int, ...] = ()) -> None:
        """Sends without blocking; the descriptors stay the caller's. Raises MessageTooLarge, ChannelClosed."""
        packet = self._encoder.encode(message)
        if len(packet) > MAX_MESSAGE_BYTES:
            raise MessageTooLarge(
                f"{type(message).__name__} takes {len(packet)} bytes, at most {MAX_MESSAGE_BYTES} are allowed"
            )
        if self._closed:
            raise ChannelClosed("this end is closed")
        if self._waiting or not self._try_send(packet, fds):
            self._waiting.append((packet, tuple(os.dup(fd) for fd in fds)))
            if len(self._waiting) == 1:
                self._sent.clear()
                asyncio.get_running_loop().add_writer(self._sock, self._flush)

    async def drain(self) -> None:
        """Returns when all that was posted has been handed to the kernel, or the channel is closed."""
        await self._sent.wait()

    async def receive(self) -> tuple[In, tuple[int, ...]]:
        """The next message and the descriptors that came with it, which are the caller's to close.

        Raises ChannelClosed at the end, ProtocolError for anything that is not a message.
        """
        while True:
            if self._closed:
                raise ChannelClosed("this end is closed")
            try:
                return self._read()
            except BlockingIOError:
                await self._readable()

    def close(self) -> None:
        """Idempotent. What has not been sent is dropped."""
        if self._closed:
            return
        self._closed = True
        if self._waiting:
            asyncio.get_running_loop().remove_writer(self._sock)
        for _, fds in self._waiting:
            _close_all(fds)
        self._waiting.clear()
        self._sent.set()
        self._sock.close()

    def _try_send(self, packet: bytes, fds: tuple[int, ...]) -> bool:
        ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        try:
            self._sock.sendmsg([packet], ancillary, socket.MSG_NOSIGNAL)
        except BlockingIOError:
            return False
        except (BrokenPipeError, ConnectionError) as error:
            raise ChannelClosed(f"the other side has gone: {error}") from error
        return True

    def _flush(self) -> None:
        while self._waiting:
            packet, fds = self._waiting[0]
            try:
                if not self._try_send(packet, fds):
                    return
            except ChannelClosed:  # the reader of this end finds out by itself
                for _, left in self._waiting:
                    _close_all(left)
                self._waiting.clear()
                break
            _close_all(fds)
            self._waiting.popleft()
        asyncio.get_running_loop().remove_writer(self._sock)
        self._sent.set()

    async def _readable(self) -> None:
        loop = asyncio.get_running_loop()
        ready: asyncio.Future[None] = loop.create_future()
        loop.add_reader(self._sock, _resolve, ready)
        try:
            await ready
        finally:
            if not self._closed:
                loop.remove_reader(self._sock)

    def _read(self) -> tuple[In, tuple[int, ...]]:
        fds = array.array("i")
        try:
            packet, ancillary, flags, _ = self._sock.recvmsg(
                MAX_MESSAGE_BYTES, socket.CMSG_SPACE(_MAX_FDS * fds.itemsize), socket.MSG_CMSG_CLOEXEC
            )
        except ConnectionError as error:
            raise ChannelClosed(f"the other side has gone: {error}") from error
        for level, kind, data in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                fds.frombytes(data[: len(data) - len(data) % fds.itemsize])
        received = tuple(fds)
        try:
            return self._parse(packet, flags), received
        except (ChannelClosed, ProtocolError):
            _close_all(received)
            raise

    def _parse(self, packet: bytes, flags: int) -> In:
        if not packet:
            raise ChannelClosed("the other side has gone")
        if flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
            raise ProtocolError(
                f"a packet of more than {MAX_MESSAGE_BYTES} bytes or {_MAX_FDS} descriptors came, which is not allowed"
            )
        try:
            message = self._decoder.decode(packet)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise ProtocolError(f"not a message of protocol {PROTOCOL}: {error}; it begins {packet[:60]!r}") from error
        if isinstance(message, Ready) and message.protocol != PROTOCOL:
            raise ProtocolError(f"the worker speaks protocol {message.protocol}, this agent {PROTOCOL}")
        return message


SupervisorChannel = Channel[ToWorker, FromWorker]
WorkerChannel = Channel[FromWorker, ToWorker]


def supervisor_channel(sock: socket.socket) -> SupervisorChannel:
    """The supervisor's end of a worker's socketpair; takes the socket over."""
    return Channel(sock, msgspec.json.Decoder(FromWorker))


def worker_channel(sock: socket.socket) -> WorkerChannel:
    """The worker's end; takes the socket over."""
    return Channel(sock, msgspec.json.Decoder(ToWorker))


def socket_pair() -> tuple[socket.socket, socket.socket]:
    """The supervisor's end and the worker's, neither inheritable; pass the second by number (`pass_fds`)."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def _resolve(future: "asyncio.Future[None]") -> None:
    if not future.done():
        future.set_result(None)


def _close_all(fds: tuple[int, ...]) -> None:
    for fd in fds:
        os.close(fd)
