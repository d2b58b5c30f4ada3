"""wasi:http/types and outgoing-handler: requests that guests send, and the responses that come.

A guest may ask the hosts of its workload's list, and no others: everything else is denied, as is everything where its
host has no outbox.
"""

import re
from dataclasses import dataclass, field
from typing import Final

from wasmpool_agent.http.sending import Request, Response, Sending, Upload
from wasmpool_agent.wasi.p2.host import Host
from wasmpool_agent.wasi.p2.http_bodies import IncomingBody, OutgoingBody
from wasmpool_agent.wasi.p2.http_fields import Fields, Result
from wasmpool_agent.wasi.p2.http_types import Answering
from wasmpool_agent.wasi.p2.registry import err, function, ok
from wasmpool_agent.wasmtime_async import Wait

_HTTP: Final = "wasi:http/types#"
_REQUEST: Final = f"{_HTTP}[method]outgoing-request."
_OPTIONS: Final = f"{_HTTP}[method]request-options."
_FUTURE: Final = f"{_HTTP}[method]future-incoming-response."
_RESPONSE: Final = f"{_HTTP}[method]incoming-response."
_MOST_SECONDS: Final = {"connect-timeout": 10.0, "first-byte-timeout": 600.0, "between-bytes-timeout": 600.0}
"""What a guest gets if it asks for nothing, and the most that it may ask for."""
_NS: Final = 10**9
_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+\Z")
_TARGET: Final = re.compile(r"(?:[/?][\x21-\x22\x24-\x7e]*)?\Z")
_AUTHORITY: Final = re.compile(r"[A-Za-z0-9._-]+(?::[0-9]{1,5})?\Z|\[[0-9A-Fa-f:.]+\](?::[0-9]{1,5})?\Z")
_SCHEME: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*\Z")

Named = tuple[str, str | None]
"""A variant whose case `other` has a name."""


@dataclass(slots=True)
class OutgoingRequest:
    """The resource."""

    fields: Fields
    method: Named = ("get", None)
    path_with_query: str | None = None
    scheme: Named | None = None
    authority: str | None = None
    body: OutgoingBody | None = None
    upload: Upload | None = None


@dataclass(slots=True)
class RequestOptions:
    """The resource: nanoseconds by name."""

    values: dict[str, int | None] = field(default_factory=dict[str, int | None])

    def seconds(self, name: str) -> float:
        """Never more than is allowed."""
        value, most = self.values.get(name), _MOST_SECONDS[name]
        return most if value is None else min(max(value / _NS, 0.001), most)


@dataclass(slots=True)
class FutureIncomingResponse:
    """The resource."""

    sending: Sending
    taken: bool = False

    def readiness(self) -> Wait | None:
        """See Pollable."""
        return None if self.sending.outcome is not None else self.sending.changed

    def close(self) -> None:
        """The guest has dropped it: nobody waits for a response that was not taken."""
        if not self.taken:
            self.sending.close()


class _Subscription:
    """The pollable of a future. NB: dropping it must not give up the request."""

    __slots__ = ("_future",)

    def __init__(self, future: FutureIncomingResponse) -> None:
        self._future = future

    def readiness(self) -> Wait | None:
        """See Pollable."""
        return self._future.readiness()


@dataclass(slots=True)
class IncomingResponse:
    """The resource."""

    response: Response
    consumed: bool = False

    def close(self) -> None:
        """The guest has dropped it: nobody reads a body that was not taken."""
        if not self.consumed:
            self.response.body.abandon()


# ----------------------------------------------------------------------------------------------------------- requests
@function(f"{_HTTP}[constructor]outgoing-request")
def new_request(_: Host, fields: Fields) -> OutgoingRequest:
    fields.immutable = True
    return OutgoingRequest(fields)


@function(_REQUEST + "body")
def request_body(_: Host, request: OutgoingRequest) -> Result:
    if request.body is not None:
        return err()
    lengths = request.fields.named("content-length")
    request.upload = Upload(int(lengths[0]) if lengths else None)
    request.body = OutgoingBody(request.upload, "HTTP-request-body-size", on_drop=request.upload.break_off)
    return ok(request.body)


@function(_REQUEST + "headers")
def request_headers(_: Host, request: OutgoingRequest) -> Fields:
    return Fields(request.fields.entries, immutable=True)


@function(_REQUEST + "method")
def method(_: Host, request: OutgoingRequest) -> Named:
    return request.method


@function(_REQUEST + "set-method")
def set_method(_: Host, request: OutgoingRequest, value: Named) -> Result:
    if value[0] == "other" and not _TOKEN.match(value[1] or ""):
        return err()
    request.method = value
    return ok()


@function(_REQUEST + "path-with-query")
def path_with_query(_: Host, request: OutgoingRequest) -> str | None:
    return request.path_with_query


@function(_REQUEST + "set-path-with-query")
def set_path_with_query(_: Host, request: OutgoingRequest, value: str | None) -> Result:
    if value is not None and not _TARGET.match(value):
        return err()
    request.path_with_query = value
    return ok()


@function(_REQUEST + "scheme")
def scheme(_: Host, request: OutgoingRequest) -> Named | None:
    return request.scheme


@function(_REQUEST + "set-scheme")
def set_scheme(_: Host, request: OutgoingRequest, value: Named | None) -> Result:
    if value is not None and value[0] == "other" and not _SCHEME.match(value[1] or ""):
        return err()
    request.scheme = value
    return ok()


@function(_REQUEST + "authority")
def authority(_: Host, request: OutgoingRequest) -> str | None:
    return request.authority


@function(_REQUEST + "set-authority")
def set_authority(_: Host, request: OutgoingRequest, value: str | None) -> Result:
    if value is not None and not _AUTHORITY.match(value):
        return err()
    request.authority = value
    return ok()


# ------------------------------------------------------------------------------------------------------------ options
@function(f"{_HTTP}[constructor]request-options")
def new_options(_: Host) -> RequestOptions:
    return RequestOptions()


def _option(name: str) -> None:
    def get(_: Host, options: RequestOptions) -> int | None:
        return options.values.get(name)

    def put(_: Host, options: RequestOptions, value: int | None) -> Result:
        options.values[name] = value
        return ok()

    function(_OPTIONS + name)(get)
    function(f"{_OPTIONS}set-{name}")(put)


for _name in _MOST_SECONDS:
    _option(_name)


# ------------------------------------------------------------------------------------------------------------ sending
@function("wasi:http/outgoing-handler#handle")
def handle(host: Host, request: OutgoingRequest, options: RequestOptions | None) -> Result:
    outbox = host.http.outbox if isinstance(host.http, Answering) else None
    if outbox is None:
        return err(("HTTP-request-denied", None))
    scheme_name = "https" if request.scheme is None else (request.scheme[1] or request.scheme[0]).lower()
    if scheme_name not in {"http", "https"}:
        return err(("HTTP-protocol-error", None))
    if request.authority is None:
        return err(("HTTP-request-URI-invalid", None))
    problem = outbox.problem(scheme_name, request.authority)
    if problem is not None:
        return err((problem, None))
    verb = (
        (request.method[1] or request.method[0].upper()) if request.method[0] == "other" else request.method[0].upper()
    )
    if verb == "CONNECT":
        return err(("HTTP-request-method-invalid", None))
    lengths = request.fields.named("content-length")
    if len(lengths) > 1:
        return err(("HTTP-protocol-error", None))
    if request.upload is None and lengths and lengths[0].strip(b"0 "):
        # The other side would take the next request on this connection for the body that it was promised.
        return err(("HTTP-request-body-size", 0))
    if request.upload is not None and request.upload.closed:
        return err(("HTTP-request-body-size", request.upload.written))
    target = request.path_with_query or "/"
    how = options or RequestOptions()
    sent = Request(
        verb,
        scheme_name,
        request.authority.lower(),
        target if target.startswith("/") else f"/{target}",
        request.fields.entries,
        *(how.seconds(name) for name in _MOST_SECONDS),
    )
    return ok(FutureIncomingResponse(outbox.send(sent, request.upload)))


@function(_FUTURE + "subscribe")
def subscribe(_: Host, future: FutureIncomingResponse) -> _Subscription:
    return _Subscription(future)


@function(_FUTURE + "get")
def get(_: Host, future: FutureIncomingResponse) -> Result | None:
    outcome = future.sending.outcome
    if outcome is None:
        return None
    if future.taken:
        return err()
    future.taken = True
    return ok(ok(IncomingResponse(outcome)) if isinstance(outcome, Response) else err(outcome))


@function(_RESPONSE + "status")
def status(_: Host, response: IncomingResponse) -> int:
    return response.response.status


@function(_RESPONSE + "headers")
def headers(_: Host, response: IncomingResponse) -> Fields:
    return Fields(response.response.fields, immutable=True)


@function(_RESPONSE + "consume")
def consume(_: Host, response: IncomingResponse) -> Result:
    if response.consumed:
        return err()
    response.consumed = True
    return ok(IncomingBody(response.response.body))
