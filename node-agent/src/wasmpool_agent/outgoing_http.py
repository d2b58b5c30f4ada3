"""Connections to others, by aiohttp: names are looked up and addresses checked here, and nowhere else.

Takes 16 MB and a quarter of a second to load: whoever sends nothing should do without. See http.network.

NB: the address is checked where the socket to it is made, whatever a name has meant before, and once more where names
are looked up, for the sake of those addresses of a name that may be asked.
"""

import asyncio
import socket
import ssl
from collections.abc import Callable
from concurrent.futures import Executor
from contextlib import suppress
from typing import Any, Final

import aiohttp
from aiohttp.abc import AbstractResolver, AbstractStreamWriter, ResolveResult
from aiohttp.payload import Payload
from yarl import URL

from wasmpool_agent.http.head import FORBIDDEN
from wasmpool_agent.http.network import Lookup, Loopback
from wasmpool_agent.http.sending import ErrorCode, Sending, SendingError, Upload
from wasmpool_agent.oci.addresses import why_forbidden

LOOKUPS_MOST: Final = 2
"""Of one workload at a time: more would wait behind each other for all workloads' threads."""
_IDLE_SECONDS: Final = 15.0
_UNSENT: Final = ("Accept", "Accept-Encoding", "Content-Type", "User-Agent")
"""Headers that are the guest's to send."""


class ProhibitedError(OSError):
    """An address that no guest may ask."""


def addresses_of(name: str, port: int, family: socket.AddressFamily) -> list[str]:
    """By the system's resolver."""
    found = socket.getaddrinfo(name, port, family, socket.SOCK_STREAM)
    return list(dict.fromkeys(str(it[4][0]) for it in found))


class AioSession:
    """What the requests of one workload share. Implements http.network.Session."""

    def __init__(
        self, lookup: Lookup | None, lookups: Executor, trusted: ssl.SSLContext, *, loopback: Loopback
    ) -> None:
        """See MakeSession."""

        def checked(address: Any) -> socket.socket:  # aiohttp's type of it is only half known
            family, kind, protocol, _, where = address
            self.check(str(where[0]), int(where[1]))
            return socket.socket(family, kind, protocol)

        self._loopback = loopback
        self.client = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                resolver=_Resolver(lookup or addresses_of, lookups, self.check),
                socket_factory=checked,
                use_dns_cache=False,
                ssl=trusted,
                limit=0,
                keepalive_timeout=_IDLE_SECONDS,
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            skip_auto_headers=_UNSENT,
            auto_decompress=False,
            trust_env=False,
            timeout=aiohttp.ClientTimeout(total=None),
        )

    def check(self, address: str, port: int) -> None:
        """Raises ProhibitedError."""
        why = why_forbidden(address, loopback=self._loopback(address, port))
        if why:
            raise ProhibitedError(f"{address} {why.partition(',')[0]}")

    async def exchange(self, sending: Sending) -> None:
        """See Exchanged."""
        request, upload = sending.request, sending.upload
        whole = upload.whole() if upload is not None else None
        data = (whole or None) if upload is None or whole is not None else _Body(upload)
        try:
            async with self.client.request(
                request.method,
                URL(f"{request.scheme}://{request.authority}{request.target}", encoded=True),
                headers=[(name, value.decode()) for name, value in request.fields],
                data=data,
                allow_redirects=False,
                timeout=aiohttp.ClientTimeout(
                    total=None, connect=request.connect_seconds, sock_read=request.first_byte_seconds
                ),
            ) as response:
                protocol = response.connection.protocol if response.connection is not None else None
                if protocol is not None:
                    protocol.read_timeout = request.between_bytes_seconds
                    protocol.start_timeout()
                found = ((name.decode("latin-1").lower(), value) for name, value in response.raw_headers)
                fields = [it for it in found if it[0] not in FORBIDDEN]
                await sending.receive(response.status, fields, response.content.iter_any())
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise SendingError(_code(error), str(error) or type(error).__name__) from error

    async def close(self) -> None:
        """Ends its connections."""
        await self.client.close()


class _Body(Payload):
    """A body that is still being written. The head goes before it, for the other side may have to answer that first."""

    def __init__(self, upload: Upload) -> None:
        super().__init__(upload)
        self._upload = upload

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        """See Payload."""
        del encoding, errors
        raise TypeError("a body that is streamed is no text")

    async def write(self, writer: AbstractStreamWriter) -> None:
        """See Payload."""
        writer.send_headers()
        async for piece in self._upload.pieces():
            # NB: now it can't be sent anew: over another connection the rest of it would pass for all of it.
            self._consumed = True
            await writer.write(piece)


class _Resolver(AbstractResolver):
    def __init__(self, lookup: Lookup, lookups: Executor, check: Callable[[str, int], None]) -> None:
        self._lookup = lookup
        self._lookups = lookups
        self._check = check
        self._turns = asyncio.Semaphore(LOOKUPS_MOST)

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        addresses = await self._addresses(host, port, family)
        found: list[ResolveResult] = []
        refused: ProhibitedError | None = None
        for address in addresses:
            try:
                self._check(address, port)
            except ProhibitedError as error:
                refused = error
            else:
                version = socket.AF_INET6 if ":" in address else socket.AF_INET
                found.append(
                    ResolveResult(
                        hostname=host, host=address, port=port, family=version, proto=0, flags=socket.AI_NUMERICHOST
                    )
                )
        if not found:
            raise refused or OSError(f"{host} has no address")
        return found

    async def _addresses(self, host: str, port: int, family: socket.AddressFamily) -> list[str]:
        loop = asyncio.get_running_loop()
        await self._turns.acquire()

        def ended(_: object) -> None:
            with suppress(RuntimeError):  # the loop has ended before it
                loop.call_soon_threadsafe(self._turns.release)

        try:
            looking = self._lookups.submit(self._lookup, host, port, family)
        except BaseException:
            self._turns.release()
            raise
        # NB: the thread's end, not the request's: who gives up does not free the thread that looks.
        looking.add_done_callback(ended)
        return await asyncio.wrap_future(looking)

    async def close(self) -> None:
        """See AbstractResolver."""


def _code(error: Exception) -> ErrorCode:
    """WASI's word for what went wrong."""
    cause = error.os_error if isinstance(error, aiohttp.ClientConnectorError) else error
    for kind, code in _CODES:
        if isinstance(cause, kind):
            return code
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return "DNS-error", {"rcode": None, "info-code": None}
    for kind, code in _LESS_EXACT:
        if isinstance(error, kind):
            return code
    return "internal-error", None


_CODES: Final[tuple[tuple[type[BaseException], ErrorCode], ...]] = (
    (ProhibitedError, ("destination-IP-prohibited", None)),
    (ssl.SSLCertVerificationError, ("TLS-certificate-error", None)),
    (ssl.SSLError, ("TLS-protocol-error", None)),
    (socket.gaierror, ("DNS-error", {"rcode": None, "info-code": None})),
    (aiohttp.ConnectionTimeoutError, ("connection-timeout", None)),
    (aiohttp.SocketTimeoutError, ("connection-read-timeout", None)),
    (ConnectionRefusedError, ("connection-refused", None)),
)
_LESS_EXACT: Final[tuple[tuple[type[BaseException], ErrorCode], ...]] = (
    (aiohttp.ClientPayloadError, ("HTTP-response-incomplete", None)),
    (aiohttp.ClientConnectorError, ("destination-unavailable", None)),
    (aiohttp.ClientConnectionError, ("connection-terminated", None)),
    (aiohttp.InvalidURL, ("HTTP-request-URI-invalid", None)),
    (aiohttp.ClientError, ("HTTP-protocol-error", None)),
    (OSError, ("connection-terminated", None)),
    (ValueError, ("HTTP-protocol-error", None)),
)
