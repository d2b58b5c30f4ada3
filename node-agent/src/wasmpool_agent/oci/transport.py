"""One HTTP request with its redirects. The only module that opens connections.

Never: a plain request where the settings do not say so, an address that is forbidden, an Authorization header to
another server than the one that it was made for.
"""

import os
import socket
import ssl
from collections.abc import AsyncGenerator, Mapping
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any, Final

import aiohttp
import msgspec
from yarl import URL

from wasmpool_agent.oci.addresses import why_forbidden
from wasmpool_agent.oci.errors import (
    AddressForbiddenError,
    NotFoundError,
    PullError,
    RejectedError,
    SettingsInvalidError,
    TooLargeError,
    UnauthorizedError,
    UnreachableError,
    shown,
)
from wasmpool_agent.oci.names import Resolver
from wasmpool_agent.oci.proxies import Proxies
from wasmpool_agent.oci.settings import Limits, Registries

MOST_REDIRECTS: Final = 5
MOST_ERROR_BYTES: Final = 16 * 1024
MOST_ERRORS_SHOWN: Final = 3
_CHUNK: Final = 256 * 1024
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_HIDDEN: Final = "; a registry may say so of what these credentials may not pull, too"


_FORBIDDEN: Final = "is never contacted"
"""In messages from inside aiohttp, which passes on nothing but OSError, and of several addresses only the text."""


class _ErrorItem(msgspec.Struct, frozen=True):
    code: str = ""
    message: str = ""


class _ErrorBody(msgspec.Struct, frozen=True):
    errors: list[_ErrorItem] = msgspec.field(default_factory=list[_ErrorItem])
    details: str = ""
    error: str = ""
    error_description: str = ""


@dataclass(frozen=True, slots=True)
class Request:
    """`what`: for messages. `authorization`: only for the server of this URL. `form`: the body."""

    method: str
    url: URL
    what: str
    headers: Mapping[str, str]
    authorization: str | None = None
    form: Mapping[str, str] | None = None

    def authorized(self, header: str | None) -> "Request":
        """The same with this header."""
        return replace(self, authorization=header)

    def __repr__(self) -> str:
        return f"Request({self.method} {self.url.with_query(None)})"


class Answer:
    """A response whose body has not been read. What goes wrong on the way raises PullError.

    `asked`: whether it is of the server that was asked, and not of another that this one led to.
    """

    def __init__(self, response: aiohttp.ClientResponse, request: Request, *, asked: bool) -> None:
        self._response = response
        self._request = request
        self.status = response.status
        self.headers = response.headers
        self.asked = asked

    async def chunks(self) -> AsyncGenerator[bytes]:
        """The body as it comes."""
        try:
            async for chunk in self._response.content.iter_chunked(_CHUNK):
                yield chunk
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise _unreachable(self._request, error) from error

    async def read(self, most_bytes: int) -> bytes:
        """The whole body."""
        data = bytearray()
        async with aclosing(self.chunks()) as chunks:
            async for chunk in chunks:
                data += chunk
                if len(data) > most_bytes:
                    raise TooLargeError(f"{self._request.what}: the answer has more than {most_bytes} bytes")
        return bytes(data)

    async def refusal(self) -> PullError:
        """What this answer means, with the registry's own words."""
        said = await self._said()
        text = f"{self._request.what}: {self.status}{f': {said}' if said else ''}"
        if self.status in {401, 403}:
            return UnauthorizedError(text, status=self.status)
        if self.status == 404:
            return NotFoundError(text + _HIDDEN, status=self.status)
        if self.status in {408, 425, 429} or self.status >= 500:
            return UnreachableError(text, status=self.status, retry_after=self._retry_after())
        return RejectedError(text, status=self.status)

    async def _said(self) -> str:
        data = bytearray()
        try:
            async with aclosing(self.chunks()) as chunks:
                async for chunk in chunks:
                    data += chunk
                    if len(data) > MOST_ERROR_BYTES:
                        break
        except PullError:
            return ""
        try:
            body = msgspec.json.decode(bytes(data), type=_ErrorBody)
        except (msgspec.MsgspecError, RecursionError, UnicodeError, ValueError):
            # A page of HTML says nothing to anybody.
            return "" if data.lstrip().startswith(b"<") else shown(data.decode(errors="replace"))
        items = [" ".join(part for part in (item.code, item.message) if part) for item in body.errors]
        single = ": ".join(part for part in (body.error, body.error_description or body.details) if part)
        return shown("; ".join([*items[:MOST_ERRORS_SHOWN], single]).strip("; "))

    def _retry_after(self) -> float | None:
        given = self.headers.get("Retry-After", "")
        return float(given) if given.isascii() and given.isdigit() and len(given) < 8 else None


class Transport:
    """Owns the connections; an async context manager."""

    def __init__(
        self, registries: Registries, limits: Limits, user_agent: str, environment: Mapping[str, str] | None = None
    ) -> None:
        """`environment`: where proxies are looked for. Raises SettingsInvalidError."""
        self._registries = registries
        self._limits = limits
        self._user_agent = user_agent
        self._proxies = Proxies(os.environ if environment is None else environment)
        self._system = ssl.create_default_context()
        self._trust = {
            entry.host: _trusting(entry.host, entry.ca_bundle)
            for entry in registries.entries()
            if entry.ca_bundle is not None
        }
        self._stack = AsyncExitStack()
        self._resolver = Resolver(limits.connect_seconds)
        self._sessions: dict[bool | None, aiohttp.ClientSession] = {}

    async def __aenter__(self) -> "Transport":
        # NB: connections are kept and used again, so what may be reached by which is decided by the session
        self._stack.push_async_callback(self._resolver.close)
        for loopback in (False, True, None):
            session = self._session(loopback)
            self._sessions[loopback] = await self._stack.enter_async_context(session)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._stack.aclose()
        self._sessions = {}

    @asynccontextmanager
    async def open(self, request: Request) -> AsyncGenerator[Answer]:
        """The answer, after redirects. Raises PullError if there is none; a status of failure is an answer."""
        url, headers = request.url, dict(request.headers)
        if request.authorization is not None:
            headers["Authorization"] = request.authorization
        for _ in range(MOST_REDIRECTS + 1):
            response = await self._send(request, url, headers)
            try:
                if response.status not in _REDIRECTS or "Location" not in response.headers or request.form is not None:
                    yield Answer(response, request, asked=url.origin() == request.url.origin())
                    return
                following = _target(request, url, response.headers["Location"])
            finally:
                response.release()
            if following.origin() != url.origin():
                headers.pop("Authorization", None)
            url = following
        raise RejectedError(f"{request.what}: more than {MOST_REDIRECTS} redirects")

    async def _send(self, request: Request, url: URL, headers: Mapping[str, str]) -> aiohttp.ClientResponse:
        entry = self._registries.at(url)
        if url.scheme != "https" and not (url.scheme == "http" and entry is not None and entry.plain_http):
            raise UnreachableError(
                f"{request.what}: {_shown(url)} is not HTTPS; plain HTTP is allowed only with a registry whose "
                "settings say plainHTTP",
                temporary=False,
            )
        loopback = self._registries.names(url)
        forbidden = _literal_forbidden(url, loopback=loopback)
        if forbidden:
            raise AddressForbiddenError(f"{request.what}: {_shown(url)} {_FORBIDDEN}: it {forbidden}")
        options: dict[str, Any] = {"data": request.form} if request.form is not None else {}
        proxy = self._proxies.of(url)
        if proxy is not None:
            options["proxy"] = proxy.url
            if proxy.authorization is not None:
                options["proxy_headers"] = {"Proxy-Authorization": proxy.authorization}
        try:
            return await self._sessions[None if proxy is not None else loopback].request(
                request.method,
                url,
                headers=headers,
                allow_redirects=False,
                ssl=self._trust.get(entry.host, self._system) if entry is not None else self._system,
                **options,
            )
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            raise _unreachable(request, error, url) from error

    def _session(self, loopback: bool | None) -> aiohttp.ClientSession:
        """`loopback`: whether that may be reached; None: a proxy, which may be anywhere."""

        def connecting(info: tuple[Any, ...]) -> socket.socket:
            family, kind, protocol, _, address = info
            forbidden = "" if loopback is None else why_forbidden(str(address[0]), loopback=loopback)
            if forbidden:
                raise OSError(f"{address[0]} {_FORBIDDEN}: it {forbidden}")
            return socket.socket(family, kind, protocol)

        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(socket_factory=connecting, resolver=self._resolver),
            timeout=aiohttp.ClientTimeout(
                total=None, sock_connect=self._limits.connect_seconds, sock_read=self._limits.stall_seconds
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            # NB: digests are over the bytes as they are sent
            headers={"User-Agent": self._user_agent, "Accept-Encoding": "identity"},
            auto_decompress=False,
            trust_env=False,
        )


def _trusting(host: str, ca_bundle: bytes) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cadata=ca_bundle.decode("ascii"))
    except (ssl.SSLError, ValueError) as error:
        raise SettingsInvalidError(f"registries: {host}: caBundle is no list of PEM certificates: {error}") from error


def _target(request: Request, url: URL, location: str) -> URL:
    try:
        # NB: encoded=True: what is signed in it must stay as it is, sign by sign
        target = url.join(URL(location, encoded=True)).with_fragment(None)
    except ValueError:
        target = URL()
    if target.host is None or target.scheme not in {"http", "https"}:
        raise RejectedError(f"{request.what}: redirected to what is no URL of HTTP: {shown(location, 100)}")
    return target.with_user(None) if target.user is not None else target


def _literal_forbidden(url: URL, *, loopback: bool) -> str:
    host = url.raw_host or ""
    if not host.strip("0123456789.") or ":" in host:
        return why_forbidden(host, loopback=loopback)
    return "is loopback, and no registry's settings name it" if host == "localhost" and not loopback else ""


def _unreachable(request: Request, error: Exception, url: URL | None = None) -> UnreachableError:
    where = f"{_shown(url)}: " if url is not None and url.origin() != request.url.origin() else ""
    text = f"{request.what}: {where}{_words(error)}"
    if _FORBIDDEN in text:
        return AddressForbiddenError(text)
    untrusted = isinstance(error, aiohttp.ClientConnectorCertificateError | aiohttp.ClientConnectorSSLError)
    return UnreachableError(text, temporary=not untrusted)


def _words(error: Exception) -> str:
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return shown(f"the certificate of {error.host}:{error.port} is not trusted: {error.certificate_error}")
    if isinstance(error, aiohttp.ClientConnectorError):
        return shown(f"can't connect to {error.host}:{error.port}: {error.strerror or error.os_error}")
    if isinstance(error, TimeoutError):
        return shown(f"no answer in time ({error})" if str(error) else "no answer in time")
    # NB: the text of others may have the URL in it, and that a signature.
    if isinstance(error, aiohttp.ClientResponseError):
        return shown(f"{error.status} {error.message}")
    if isinstance(error, aiohttp.ClientPayloadError | aiohttp.ServerDisconnectedError):
        return "the connection ended within the answer"
    if isinstance(error, OSError) and not isinstance(error, aiohttp.ClientError):
        return shown(error.strerror or str(error))
    return type(error).__name__


def _shown(url: URL) -> str:
    """Without the query, which may be a signature."""
    return shown(str(url.with_query(None).with_user(None)), 200)
