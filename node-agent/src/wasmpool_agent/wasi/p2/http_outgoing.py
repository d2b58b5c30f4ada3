"""wasi:http/types and outgoing-handler, for requests that guests would send: made, and then denied.

This version sends none: what there is lets programs that may send some come as far as being told so.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from wasmpool_agent.http.body import Outgoing
from wasmpool_agent.wasi.p2.host import Host
from wasmpool_agent.wasi.p2.http_bodies import OutgoingBody
from wasmpool_agent.wasi.p2.http_fields import Fields
from wasmpool_agent.wasi.p2.registry import err, function, ok

_HTTP: Final = "wasi:http/types#"
_REQUEST: Final = f"{_HTTP}[method]outgoing-request."
_OPTIONS: Final = f"{_HTTP}[method]request-options."
_OPTION_NAMES: Final = ("connect-timeout", "first-byte-timeout", "between-bytes-timeout")

Named = tuple[str, str | None]


class _Nowhere:
    """Takes bytes that go nowhere."""

    def send(self, data: bytes | bytearray) -> None:
        """See Sink."""

    def soon(self, what: Callable[[], None]) -> None:
        """See Sink."""

    def ended(self, answer: Outgoing) -> None:
        """See Sink."""

    def broken(self, answer: Outgoing) -> None:
        """See Sink."""


@dataclass(slots=True)
class OutgoingRequest:
    """The resource."""

    fields: Fields
    method: Named = ("get", None)
    path_with_query: str | None = None
    scheme: Named | None = None
    authority: str | None = None
    body: OutgoingBody | None = None


@dataclass(slots=True)
class RequestOptions:
    """The resource: nanoseconds by name."""

    values: dict[str, int | None] = field(default_factory=dict[str, int | None])


@function(f"{_HTTP}[constructor]outgoing-request")
def new_request(_: Host, fields: Fields) -> OutgoingRequest:
    fields.immutable = True
    return OutgoingRequest(fields)


@function(_REQUEST + "body")
def request_body(_: Host, request: OutgoingRequest) -> object:
    if request.body is not None:
        return err()
    request.body = OutgoingBody(Outgoing(_Nowhere()), "HTTP-request-body-size")
    return ok(request.body)


@function(_REQUEST + "headers")
def request_headers(_: Host, request: OutgoingRequest) -> Fields:
    return Fields(request.fields.entries, immutable=True)


def _property(name: str, attribute: str) -> None:
    def get(_: Host, request: OutgoingRequest) -> object:
        return getattr(request, attribute)

    def put(_: Host, request: OutgoingRequest, value: object) -> object:
        setattr(request, attribute, value)
        return ok()

    function(_REQUEST + name)(get)
    function(f"{_REQUEST}set-{name}")(put)


for _name in ("method", "path-with-query", "scheme", "authority"):
    _property(_name, _name.replace("-", "_"))


@function(f"{_HTTP}[constructor]request-options")
def new_options(_: Host) -> RequestOptions:
    return RequestOptions()


def _option(name: str) -> None:
    def get(_: Host, options: RequestOptions) -> int | None:
        return options.values.get(name)

    def put(_: Host, options: RequestOptions, value: int | None) -> object:
        options.values[name] = value
        return ok()

    function(_OPTIONS + name)(get)
    function(f"{_OPTIONS}set-{name}")(put)


for _name in _OPTION_NAMES:
    _option(_name)


@function("wasi:http/outgoing-handler#handle")
def handle(_: Host, __: OutgoingRequest, ___: RequestOptions | None) -> object:
    return err(("HTTP-request-denied", None))
