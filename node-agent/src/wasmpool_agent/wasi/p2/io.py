"""wasi:io: errors, pollables and streams."""

from collections.abc import Sequence
from functools import partial
from typing import Any, Final

from wasmpool_agent.wasi.p2.host import Host
from wasmpool_agent.wasi.p2.registry import Later, err, function, ok
from wasmpool_agent.wasi.p2.streams import (
    READ_MOST_BYTES,
    AnyOf,
    InputStream,
    IoError,
    OutputStream,
    Pollable,
    StreamClosed,
    StreamFailed,
)
from wasmpool_agent.wasmtime_async import HostTrap, Wait

POLLABLES_MOST: Final = 4096
BLOCKING_WRITE_MOST: Final = 4096
"""Of one blocking-write-and-flush, as WIT says."""
Result = tuple[bool, Any]
"""As WIT has it, lifted."""
_CLOSED: Final[Result] = (False, ("closed", None))
_IN: Final = "wasi:io/streams#[method]input-stream."
_OUT: Final = "wasi:io/streams#[method]output-stream."


@function("wasi:io/error#[method]error.to-debug-string")
def to_debug_string(_: Host, error: IoError) -> str:
    return error.message


@function("wasi:io/poll#[method]pollable.ready")
def ready(_: Host, pollable: Pollable) -> bool:
    return pollable.readiness() is None


@function("wasi:io/poll#[method]pollable.block", may_wait=True)
def block(_: Host, pollable: Pollable) -> object:
    wait = pollable.readiness()
    return None if wait is None else Later(wait, lambda: block(_, pollable))


@function("wasi:io/poll#poll", may_wait=True)
def poll(host: Host, pollables: Sequence[Pollable]) -> object:
    """The numbers of those that are ready, at least one."""
    if not 0 < len(pollables) <= POLLABLES_MOST:
        raise HostTrap(f"poll of {len(pollables)} pollables; 1 to {POLLABLES_MOST} are allowed")
    waits = [pollable.readiness() for pollable in pollables]
    found = [number for number, wait in enumerate(waits) if wait is None]
    if found:
        return found
    return Later(AnyOf([wait for wait in waits if wait is not None]), lambda: poll(host, pollables))


@function(_IN + "read")
def read(_: Host, stream: InputStream, length: int) -> Result:
    try:
        data = stream.read(min(length, READ_MOST_BYTES)) if length else b""
    except StreamFailed as error:
        return _failed(error)
    return _CLOSED if data is None else ok(data)


@function(_IN + "blocking-read", may_wait=True)
def blocking_read(host: Host, stream: InputStream, length: int) -> Result | Later:
    found = read(host, stream, length)
    if found != (True, b"") or not length:
        return found
    wait = stream.readiness()
    return found if wait is None else Later(wait, lambda: blocking_read(host, stream, length))


@function(_IN + "skip")
def skip(host: Host, stream: InputStream, length: int) -> Result:
    return _counted(read(host, stream, length))


@function(_IN + "blocking-skip", may_wait=True)
def blocking_skip(host: Host, stream: InputStream, length: int) -> Result | Later:
    found = blocking_read(host, stream, length)
    if isinstance(found, Later):
        return Later(found.wait, lambda: blocking_skip(host, stream, length))
    return _counted(found)


@function(_IN + "subscribe")
def subscribe_input(_: Host, stream: InputStream) -> object:
    return _Of(stream)


@function(_OUT + "check-write")
def check_write(_: Host, stream: OutputStream) -> Result:
    try:
        return ok(stream.check_write())
    except StreamClosed:
        return _CLOSED
    except StreamFailed as error:
        return _failed(error)


@function(_OUT + "write")
def write(_: Host, stream: OutputStream, data: bytes) -> Result:
    try:
        if len(data) > stream.check_write():
            raise HostTrap("write of more bytes than check-write said")
        stream.write(data)
    except StreamClosed:
        return _CLOSED
    except StreamFailed as error:
        return _failed(error)
    return ok()


@function(_OUT + "blocking-write-and-flush", may_wait=True)
def blocking_write_and_flush(host: Host, stream: OutputStream, data: bytes) -> object:
    if len(data) > BLOCKING_WRITE_MOST:
        raise HostTrap(f"blocking-write-and-flush of {len(data)} bytes; at most {BLOCKING_WRITE_MOST} are allowed")
    return _write_all(host, stream, data)


@function(_OUT + "flush")
def flush(_: Host, stream: OutputStream) -> Result:
    try:
        stream.flush()
    except StreamClosed:
        return _CLOSED
    except StreamFailed as error:
        return _failed(error)
    return ok()


@function(_OUT + "blocking-flush", may_wait=True)
def blocking_flush(host: Host, stream: OutputStream) -> object:
    found = flush(host, stream)
    return found if found != (True, None) else _flushed(host, stream)


@function(_OUT + "subscribe")
def subscribe_output(_: Host, stream: OutputStream) -> object:
    return _Of(stream)


@function(_OUT + "write-zeroes")
def write_zeroes(host: Host, stream: OutputStream, length: int) -> Result:
    found = check_write(host, stream)
    if not found[0]:
        return found
    if length > int(found[1]):
        raise HostTrap("write-zeroes of more bytes than check-write said")
    return write(host, stream, bytes(length))


@function(_OUT + "blocking-write-zeroes-and-flush", may_wait=True)
def blocking_write_zeroes_and_flush(host: Host, stream: OutputStream, length: int) -> object:
    if length > BLOCKING_WRITE_MOST:
        raise HostTrap(f"blocking-write-zeroes-and-flush of {length} bytes; at most {BLOCKING_WRITE_MOST} are allowed")
    return _write_all(host, stream, bytes(length))


@function(_OUT + "splice")
def splice(host: Host, stream: OutputStream, source: InputStream, length: int) -> Result:
    found = check_write(host, stream)
    if not found[0]:
        return found
    data = read(host, source, min(length, int(found[1])))
    if not data[0]:
        return data
    written = write(host, stream, data[1])
    return ok(len(data[1])) if written == (True, None) else written


@function(_OUT + "blocking-splice", may_wait=True)
def blocking_splice(host: Host, stream: OutputStream, source: InputStream, length: int) -> Result | Later:
    found = splice(host, stream, source, length)
    if found != (True, 0) or not length:
        return found
    wait = stream.readiness() or source.readiness()
    return found if wait is None else Later(wait, lambda: blocking_splice(host, stream, source, length))


class _Of:
    """The pollable of a stream."""

    __slots__ = ("_stream",)

    def __init__(self, stream: Pollable) -> None:
        self._stream = stream

    def readiness(self) -> Wait | None:
        """See Pollable."""
        return self._stream.readiness()


def _write_all(host: Host, stream: OutputStream, data: bytes) -> Result | Later:
    """What is taken now, and the rest when there is room; then all of it is sent on."""
    try:
        while data:
            room = stream.check_write()
            if not room:
                wait = stream.readiness()
                if wait is None:
                    raise AssertionError("a stream without room has nothing to wait for")
                return Later(wait, partial(_write_all, host, stream, data))
            stream.write(data[:room])
            data = data[room:]
        stream.flush()
    except StreamClosed:
        return _CLOSED
    except StreamFailed as error:
        return _failed(error)
    return _flushed(host, stream)


def _flushed(host: Host, stream: OutputStream) -> Result | Later:
    wait = stream.readiness()
    if wait is None:
        found = check_write(host, stream)
        return ok() if found[0] else found
    return Later(wait, lambda: _flushed(host, stream))


def _counted(found: Result) -> Result:
    return ok(len(found[1])) if found[0] else found


def _failed(error: StreamFailed) -> Result:
    return err(("last-operation-failed", IoError(str(error), error.code)))
