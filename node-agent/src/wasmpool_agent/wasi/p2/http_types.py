"""wasi:http/types: requests that come, and responses that go."""

from dataclasses import dataclass
from typing import Final, NamedTuple

from wasmpool_agent.http.body import Outgoing
from wasmpool_agent.http.exchange import Exchange
from wasmpool_agent.http.network import Outbox
from wasmpool_agent.wasi.p2.host import Host
from wasmpool_agent.wasi.p2.http_bodies import IncomingBody, OutgoingBody
from wasmpool_agent.wasi.p2.http_fields import Fields, Result
from wasmpool_agent.wasi.p2.registry import err, function, ok

_HTTP: Final = "wasi:http/types#"
_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"})


@dataclass(slots=True)
class IncomingRequest:
    """The resource, over an exchange."""

    exchange: Exchange
    consumed: bool = False

    def close(self) -> None:
        """The guest has dropped it: nobody reads a body that was not taken."""
        if not self.consumed:
            self.exchange.body.abandon()


class _Body(NamedTuple):
    """Of a response: what the guest has, and where its bytes go."""

    resource: OutgoingBody
    answer: Outgoing


@dataclass(slots=True)
class OutgoingResponse:
    """The resource. Which of several responses becomes the answer is known when one is set."""

    fields: Fields
    status: int = 200
    body: _Body | None = None


@dataclass(slots=True)
class ResponseOutparam:
    """The resource: where the one answer goes."""

    exchange: Exchange


class Answering:
    """What an instance that answers a request has in its host. `outbox`: for those that it sends; None: it may not."""

    __slots__ = ("exchange", "outbox")

    def __init__(self, exchange: Exchange, outbox: Outbox | None = None) -> None:
        self.exchange = exchange
        self.outbox = outbox

    def close(self) -> None:
        """The instance has ended: so does what it still sends. Idempotent."""
        if self.outbox is not None:
            self.outbox.close()


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
def consume(_: Host, request: IncomingRequest) -> Result:
    if request.consumed:
        return err()
    request.consumed = True
    return ok(IncomingBody(request.exchange.body))


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
    answer = host.http.exchange.another_answer()
    response.body = _Body(OutgoingBody(answer, "HTTP-response-body-size"), answer)
    return ok(response.body.resource)


@function(f"{_HTTP}[static]response-outparam.set")
def set_response(_: Host, outparam: ResponseOutparam, result: tuple[bool, object]) -> None:
    exchange = outparam.exchange
    good, value = result
    if not good or not isinstance(value, OutgoingResponse):
        exchange.plain(500, "the guest failed to answer")
        return
    body = value.body
    if body is not None:
        exchange.adopt(body.answer)
    try:
        exchange.respond(value.status, value.fields.entries)
    except ValueError as error:
        exchange.plain(500, f"the guest failed to answer: {error}")
        return
    if body is None:
        exchange.answer.finish()
    elif body.resource.dropped:
        exchange.abort()
    else:
        body.resource.on_drop = exchange.abort


@function(f"{_HTTP}[method]response-outparam.send-informational")
def send_informational(_: Host, outparam: ResponseOutparam, status: int, fields: Fields) -> Result:
    if outparam.exchange.inform(status, fields.entries):
        return ok()
    return err(("internal-error", f"no informational answer of status {status} can be sent here now"))
