"""wasi:http/types, bodies and their trailers: of requests and of responses, in both directions."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final, Protocol

from wasmpool_agent.http.body import Field, Incoming
from wasmpool_agent.wasi.p2.host import Host
from wasmpool_agent.wasi.p2.http_fields import Fields, Result
from wasmpool_agent.wasi.p2.registry import err, function, ok
from wasmpool_agent.wasi.p2.streams import IoError, OutputStream
from wasmpool_agent.wasmtime_async import HostTrap, Wait

_HTTP: Final = "wasi:http/types#"


# ----------------------------------------------------------------------------------------------------- what comes
@dataclass(slots=True)
class IncomingBody:
    """The resource. `stream`: there is at most one, ever, and it must be dropped before the body is finished."""

    incoming: Incoming
    stream: "BodyStream | None" = None
    streamed: bool = False

    def close(self) -> None:
        """The guest has dropped it: nobody reads the rest."""
        self.incoming.abandon()


class BodyStream:
    """A body's input stream."""

    __slots__ = ("_body", "_incoming")

    def __init__(self, body: IncomingBody) -> None:
        self._body = body
        self._incoming = body.incoming

    def read(self, limit: int) -> bytes | None:
        """See InputStream."""
        return self._incoming.read(limit)

    def readiness(self) -> Wait | None:
        """See Pollable."""
        return self._incoming.readiness()

    def close(self) -> None:
        """The guest has dropped it."""
        self._body.stream = None


class Ended:
    """A pollable and a wait: for a body's end, over what is left of it."""

    __slots__ = ("_incoming",)

    def __init__(self, incoming: Incoming) -> None:
        self._incoming = incoming

    def readiness(self) -> Wait | None:
        """See Pollable."""
        return None if self.ready() else self

    def ready(self) -> bool:
        """See Wait."""
        incoming = self._incoming
        if incoming.ended or incoming.failure:
            return True
        incoming.discard()
        incoming.readiness()  # says that somebody waits
        return False

    def arm(self, wake: Callable[[], None]) -> Callable[[], None]:
        """See Wait."""
        return self._incoming.changed.arm(wake)


@dataclass(slots=True)
class FutureTrailers:
    """The resource: there when the body has come to its end."""

    incoming: Incoming
    taken: bool = False

    def close(self) -> None:
        """The guest has dropped it: nobody waits for them."""
        self.incoming.abandon()


@function(f"{_HTTP}[method]incoming-body.stream")
def body_stream(_: Host, body: IncomingBody) -> Result:
    if body.streamed:
        return err()
    body.streamed, body.stream = True, BodyStream(body)
    return ok(body.stream)


@function(f"{_HTTP}[static]incoming-body.finish")
def finish_incoming(_: Host, body: IncomingBody) -> FutureTrailers:
    if body.stream is not None:
        raise HostTrap("incoming-body.finish while the body's stream is there")
    return FutureTrailers(body.incoming)


@function(f"{_HTTP}[method]future-trailers.subscribe")
def subscribe_trailers(_: Host, trailers: FutureTrailers) -> Ended:
    return Ended(trailers.incoming)


@function(f"{_HTTP}[method]future-trailers.get")
def get_trailers(_: Host, trailers: FutureTrailers) -> Result | None:
    incoming = trailers.incoming
    if not Ended(incoming).ready():
        return None
    if trailers.taken:
        return err()
    trailers.taken = True
    if incoming.failure:
        return ok(err(incoming.failure_code))
    return ok(ok(Fields(incoming.trailers, immutable=True) if incoming.trailers else None))


# ------------------------------------------------------------------------------------------------------ what goes
class Outlet(OutputStream, Protocol):
    """What takes an outgoing body's bytes."""

    written: int

    def finish(self, trailers: Iterable[Field] = ()) -> bool:
        """It is whole. False where it is not as long as was declared."""
        ...


@dataclass(slots=True)
class OutgoingBody:
    """The resource. `stream`: as that of IncomingBody. `wrong_size`: the code for a body that is not as it declared.

    `dropped`: before it was finished, so that what it belongs to never becomes whole; `on_drop` says so to that.
    """

    outlet: Outlet
    wrong_size: str
    stream: "WriteStream | None" = None
    written: bool = False
    finished: bool = False
    dropped: bool = False
    on_drop: Callable[[], None] | None = None

    def close(self) -> None:
        """The guest has dropped it."""
        if not self.finished and not self.dropped:
            self.dropped = True
            if self.on_drop is not None:
                self.on_drop()


class WriteStream:
    """A body's output stream."""

    __slots__ = ("_body", "_outlet")

    def __init__(self, body: OutgoingBody) -> None:
        self._body = body
        self._outlet = body.outlet

    def check_write(self) -> int:
        """See OutputStream."""
        return self._outlet.check_write()

    def write(self, data: bytes) -> None:
        """See OutputStream."""
        self._outlet.write(data)

    def flush(self) -> None:
        """See OutputStream."""
        self._outlet.flush()

    def readiness(self) -> Wait | None:
        """See Pollable."""
        return self._outlet.readiness()

    def close(self) -> None:
        """The guest has dropped it."""
        self._body.stream = None


@function(f"{_HTTP}[method]outgoing-body.write")
def write(_: Host, body: OutgoingBody) -> Result:
    if body.written:
        return err()
    body.written, body.stream = True, WriteStream(body)
    return ok(body.stream)


@function(f"{_HTTP}[static]outgoing-body.finish")
def finish_outgoing(_: Host, body: OutgoingBody, trailers: Fields | None) -> Result:
    if body.stream is not None:
        raise HostTrap("outgoing-body.finish while the body's stream is there")
    body.finished = True
    whole = body.outlet.finish(trailers.entries if trailers is not None else ())
    return ok() if whole else err((body.wrong_size, body.outlet.written))


@function(f"{_HTTP}http-error-code")
def http_error_code(_: Host, error: IoError) -> object:
    return error.code
