"""wasi:http/types: requests that come, responses that go, and their bodies."""

from dataclasses import dataclass, field
from typing import Final, Protocol

from wasmpool_agent.http.body import Incoming, Outgoing
from wasmpool_agent.http.exchange import Exchange
from wasmpool_agent.wasi.p2.host import Host
from wasmpool_agent.wasi.p2.http_fields import Fields
from wasmpool_agent.wasi.p2.registry import err, function, ok
from wasmpool_agent.wasi.p2.streams import IoError
from wasmpool_agent.wasmtime_async import HostTrap, Wait

_HTTP: Final = "wasi:http/types#"
_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"})


@dataclass(slots=True)
class IncomingRequest:
    """The resource, over an exchange."""

    exchange: Exchange
    consumed: bool = False


@dataclass(slots=True)
class IncomingBody:
    """The resource. `stream`: at most one at a time, which must be dropped before the body is."""

    incoming: Incoming
    stream: "BodyStream | None" = None
    streamed: bool = False


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


@dataclass(slots=True)
class FutureTrailers:
    """The resource: ready when the body has come to its end."""

    incoming: Incoming
    taken: bool = False

    def readiness(self) -> Wait | None:
        """See Pollable."""
        if not self.incoming.ended and not self.incoming.failure:
            self.incoming.discard()
            return _End(self.incoming)
        return None


class _End:
    """A wait for a body's end, over what is left of it."""

    __slots__ = ("_incoming",)

    def __init__(self, incoming: Incoming) -> None:
        self._incoming = incoming

    def ready(self) -> bool:
        """See Wait."""
        self._incoming.discard()
        return self._incoming.ended or bool(self._incoming.failure)

    def arm(self, wake: "Wake") -> "Wake":
        """See Wait."""
        return self._incoming.changed.arm(wake)


class Wake(Protocol):
    """What is called when something may have become ready."""

    def __call__(self) -> None: ...


@dataclass(slots=True)
class OutgoingResponse:
    """The resource."""

    fields: Fields
    status: int = 200
    body: "OutgoingBody | None" = None


@dataclass(slots=True)
class OutgoingBody:
    """The resource, over whatever takes the bytes. `stream`: must be dropped before it is finished."""

    outgoing: Outgoing
    stream: "WriteStream | None" = None
    written: bool = False
    finished: bool = False
    on_drop: list["Wake"] = field(default_factory=list["Wake"])

    def close(self) -> None:
        """Dropped without having been finished: what was begun can't be made whole."""
        if not self.finished:
            self.finished = True
            for call in self.on_drop:
                call()


class WriteStream:
    """A body's output stream."""

    __slots__ = ("_body", "_outgoing")

    def __init__(self, body: OutgoingBody) -> None:
        self._body = body
        self._outgoing = body.outgoing

    def check_write(self) -> int:
        """See OutputStream."""
        return self._outgoing.check_write()

    def write(self, data: bytes) -> None:
        """See OutputStream."""
        self._outgoing.write(data)

    def flush(self) -> None:
        """See OutputStream."""
        self._outgoing.flush()

    def readiness(self) -> Wait | None:
        """See Pollable."""
        return self._outgoing.readiness()

    def close(self) -> None:
        """The guest has dropped it."""
        self._body.stream = None


@dataclass(slots=True)
class ResponseOutparam:
    """The resource: where the one answer goes."""

    exchange: Exchange


class Answering:
    """What an instance that answers a request has in its host. `body`: of the answer, until it is finished."""

    __slots__ = ("exchange",)

    def __init__(self, exchange: Exchange) -> None:
        self.exchange = exchange


def incoming(exchange: Exchange) -> tuple[IncomingRequest, ResponseOutparam]:
    """What the handler is called with."""
    return IncomingRequest(exchange), ResponseOutparam(exchange)


# ----------------------------------------------------------------------------------------------------------- requests
_REQUEST: Final = f"{_HTTP}[method]incoming-request."


@function(_REQUEST + "method")
def method(_: Host, request: IncomingRequest) -> tuple[str, str | None]:
    name = request.exchange.method
    return (name.lower(), None) if name in _METHODS else ("other", name)


@function(_REQUEST + "path-with-query")
def path_with_query(_: Host, request: IncomingRequest) -> str:
    return request.exchange.path_with_query


@function(_REQUEST + "scheme")
def scheme(_: Host, request: IncomingRequest) -> tuple[str, None]:
    return ("HTTPS" if request.exchange.scheme == "https" else "HTTP", None)


@function(_REQUEST + "authority")
def authority(_: Host, request: IncomingRequest) -> str | None:
    return request.exchange.authority


@function(_REQUEST + "headers")
def request_headers(_: Host, request: IncomingRequest) -> Fields:
    return Fields(request.exchange.headers, immutable=True)


@function(_REQUEST + "consume")
def consume(_: Host, request: IncomingRequest) -> object:
    if request.consumed:
        return err()
    request.consumed = True
    return ok(IncomingBody(request.exchange.body))


@function(f"{_HTTP}[method]incoming-body.stream")
def body_stream(_: Host, body: IncomingBody) -> object:
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
def subscribe_trailers(_: Host, trailers: FutureTrailers) -> FutureTrailers:
    # NB: not the resource itself, which the guest's dropping of the pollable must not close.
    return FutureTrailers(trailers.incoming)


@function(f"{_HTTP}[method]future-trailers.get")
def get_trailers(_: Host, trailers: FutureTrailers) -> object:
    if trailers.readiness() is not None:
        return None
    if trailers.taken:
        return err()
    trailers.taken = True
    if trailers.incoming.failure:
        return ok(err(("connection-terminated", None)))
    found = trailers.incoming.trailers
    return ok(ok(Fields(found, immutable=True) if found else None))


# ---------------------------------------------------------------------------------------------------------- responses
_RESPONSE: Final = f"{_HTTP}[method]outgoing-response."


@function(f"{_HTTP}[constructor]outgoing-response")
def new_response(host: Host, fields: Fields) -> OutgoingResponse:
    del host
    fields.immutable = True
    return OutgoingResponse(fields)


@function(_RESPONSE + "status-code")
def status_code(_: Host, response: OutgoingResponse) -> int:
    return response.status


@function(_RESPONSE + "set-status-code")
def set_status_code(_: Host, response: OutgoingResponse, status: int) -> object:
    if not 200 <= status <= 599:
        return err()
    response.status = status
    return ok()


@function(_RESPONSE + "headers")
def response_headers(_: Host, response: OutgoingResponse) -> Fields:
    return Fields(response.fields.entries, immutable=True)


@function(_RESPONSE + "body")
def response_body(host: Host, response: OutgoingResponse) -> object:
    if response.body is not None or not isinstance(host.http, Answering):
        return err()
    response.body = OutgoingBody(host.http.exchange.answer)
    return ok(response.body)


@function(f"{_HTTP}[method]outgoing-body.write")
def write(_: Host, body: OutgoingBody) -> object:
    if body.written:
        return err()
    body.written, body.stream = True, WriteStream(body)
    return ok(body.stream)


@function(f"{_HTTP}[static]outgoing-body.finish")
def finish_outgoing(_: Host, body: OutgoingBody, trailers: Fields | None) -> object:
    if body.stream is not None:
        raise HostTrap("outgoing-body.finish while the body's stream is there")
    body.finished = True
    whole = body.outgoing.finish(trailers.entries if trailers is not None else ())
    return ok() if whole else err(("HTTP-response-body-size", None))


@function(f"{_HTTP}[static]response-outparam.set")
def set_response(host: Host, outparam: ResponseOutparam, result: tuple[bool, object]) -> None:
    del host
    good, value = result
    exchange = outparam.exchange
    if exchange.responded:
        return
    if not good or not isinstance(value, OutgoingResponse):
        exchange.plain(500, "the guest failed to answer")
        return
    body = value.body
    exchange.respond(value.status, value.fields.entries)
    if body is None:
        exchange.answer.finish()
    else:
        body.on_drop.append(exchange.abort)


@function(f"{_HTTP}[method]response-outparam.send-informational")
def send_informational(_: Host, __: ResponseOutparam, ___: int, ____: Fields) -> object:
    return err(("HTTP-request-denied", None))


@function(f"{_HTTP}http-error-code")
def http_error_code(_: Host, __: IoError) -> None:
    return None
