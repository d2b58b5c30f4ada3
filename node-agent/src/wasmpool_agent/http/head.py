"""The head of a request: what llhttp has parsed, and what it does not look at.

llhttp refuses two lengths, a length and chunks, codings that do not end in chunks, folded headers, bare line ends and
control characters. Refused here is what would be read in two ways, or is not understood: other codings before the
chunks, chunks in HTTP/1.0, no or several hosts, targets that are neither a path nor a URL.
"""

import re
from dataclasses import dataclass
from typing import Final

from wasmpool_agent.http.body import Field
from wasmpool_agent.http.limits import Limits

FORBIDDEN: Final = frozenset(
    {
        "connection",
        "http2-settings",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "transfer-encoding",
        "upgrade",
    }
)
"""Headers that belong to the connection, not to the exchange: neither shown to guests nor taken from them."""
NOT_IN_TRAILERS: Final = FORBIDDEN | {"content-length", "host", "trailer"}
_TARGET: Final = re.compile(r"/[\x21-\x22\x24-\x7e]*\Z")
_URL: Final = re.compile(r"(https?)://([^/?#]*)(/?[\x21-\x22\x24-\x7e]*)\Z", re.IGNORECASE)
_AUTHORITY: Final = re.compile(r"(?:[A-Za-z0-9._~!$&'()*+,;=%-]*|\[[0-9A-Fa-f:.]+\])(?::[0-9]{0,5})?\Z")


class Refused(Exception):  # noqa: N818 - it says what happened
    """A request that can't be taken: the status and the words of its answer."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


@dataclass(slots=True)
class Head:
    """`fields`: names in lower case, without those of the connection and the host. `length`: None in chunks."""

    target: str
    authority: str | None
    fields: list[Field]
    expects: bool
    length: int | None


def request_head(version: str, method: str, target: bytes, fields: list[Field], limits: Limits) -> Head:
    """From what came. Raises Refused."""
    if version not in {"1.1", "1.0"}:
        raise Refused(505, "the only versions of HTTP that are known here are 1.1 and 1.0")
    authority: str | None = None
    expects = False
    length: int | None = 0
    kept: list[Field] = []
    for field in fields:
        name, value = field
        if name == "host":
            if authority is not None:
                raise Refused(400, "the request has more than one host header")
            authority = value.decode("latin-1")
        elif name == "expect":
            if value.lower() != b"100-continue":
                raise Refused(417, "the only expectation that is known is 100-continue")
            expects = version != "1.0"
        elif name == "content-length":
            length = int(value)
            if length > limits.body_bytes:
                raise Refused(413, f"the request's body has {length} bytes, {limits.body_bytes} are allowed")
            kept.append(field)
        elif name == "transfer-encoding":
            if version == "1.0":
                raise Refused(400, "there is no transfer-encoding in HTTP/1.0")
            if value.lower() != b"chunked":
                raise Refused(501, "the only transfer coding that is known is chunked")
            length = None
        elif name not in FORBIDDEN:
            kept.append(field)
    if authority is None and version == "1.1":
        raise Refused(400, "the request has no host header")
    path, given = _target(method, target.decode("latin-1"))
    if given is not None:  # RFC 9112: over the header
        authority = given
    if authority is not None and not _AUTHORITY.match(authority):
        raise Refused(400, "the request's host is not a host")
    return Head(path, authority, kept, expects, length)


def _target(method: str, target: str) -> tuple[str, str | None]:
    """Path with query, and the authority of a whole URL."""
    if _TARGET.match(target):
        return target, None
    if target == "*" and method == "OPTIONS":
        return target, None
    if method == "CONNECT":
        raise Refused(405, "CONNECT is for proxies")
    url = _URL.match(target)
    if url is None or not url[2]:
        raise Refused(400, "the request's target is neither a path nor a URL")
    path = url[3]
    return path if path.startswith("/") else f"/{path}", url[2]
