"""One end of a SOCK_SEQPACKET pair: one message is one packet of JSON, so that there is no framing to get wrong.

File descriptors travel beside a message by SCM_RIGHTS. What the messages are is `protocol`'s.
"""

import array
import asyncio
import os
import socket
from collections import deque
from collections.abc import Callable
from typing import Final, Generic, TypeVar

import msgspec

MAX_MESSAGE_BYTES: Final = 128 * 1024
"""A packet has to fit into the socket's send buffer, which Linux caps at 208 KiB unless told otherwise."""
MAX_FDS: Final = 64


class ProtocolError(Exception):
    """The other side sent something that is not a message of this protocol, or speaks another version of it."""


class MessageTooLarge(ProtocolError):  # noqa: N818 - a refusal, not a failure
    """A message would not fit into one packet."""


class ChannelClosed(Exception):  # noqa: N818 - it says what happened
    """The other side has gone."""


Out = TypeVar("Out", bound=msgspec.Struct)
In = TypeVar("In", bound=msgspec.Struct)


class Channel(Generic[Out, In]):
    """One end of the socketpair, used from one event loop.

    Invariant: packets leave in the order of `post`; what could not leave at once waits in `_waiting`, and a writer is
    registered with the loop exactly while `_waiting` is not empty.
    NB: close it on its loop, for the loop watches the descriptor.
    """

    def __init__(
        self, sock: socket.socket, decoder: msgspec.json.Decoder[In], check: Callable[[In], None] = lambda _: None
    ) -> None:
        """`check` raises ProtocolError for a message that can't be taken."""
        sock.setblocking(False)
        self._check = check
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
                MAX_MESSAGE_BYTES, socket.CMSG_SPACE(MAX_FDS * fds.itemsize), socket.MSG_CMSG_CLOEXEC
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
                f"a packet of more than {MAX_MESSAGE_BYTES} bytes or {MAX_FDS} descriptors came, which is not allowed"
            )
        try:
            message = self._decoder.decode(packet)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise ProtocolError(f"not a message of this protocol: {error}; it begins {packet[:60]!r}") from error
        self._check(message)
        return message


def _resolve(future: "asyncio.Future[None]") -> None:
    if not future.done():
        future.set_result(None)


def _close_all(fds: tuple[int, ...]) -> None:
    for fd in fds:
        os.close(fd)
