"""Where guests' requests may go, and by which connections.

Network    what all workloads of a worker share: threads that look names up, and whom to trust
Client     of one workload: the hosts that it may ask, and its connections
Outbox     of one instance: its requests, so many at a time
"""

import asyncio
import re
import socket
import ssl
from collections.abc import Callable, Iterable
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import suppress
from typing import Final, Protocol

from wasmpool_agent.egress import is_allowed, is_named
from wasmpool_agent.http.sending import Request, Sending, SendingError, Upload

SENDING_MOST: Final = 16
"""Requests of one instance at a time."""
_LOOKUP_THREADS: Final = 4
_AUTHORITY: Final = re.compile(r"([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::([0-9]{1,5}))?\Z")
_PORTS: Final = {"http": 80, "https": 443}


Lookup = Callable[[str, int, socket.AddressFamily], list[str]]
"""(name, port, family) -> addresses. Blocks; raises OSError."""
Loopback = Callable[[str, int], bool]
"""(address, port) -> whether this one of the machine's own may be asked."""


class Session(Protocol):
    """Connections of one workload."""

    async def exchange(self, sending: Sending) -> None:
        """See Exchanged."""
        ...

    async def close(self) -> None:
        """Ends its connections."""
        ...


class MakeSession(Protocol):
    """On the loop. `lookup` is called on `lookups`; None: the system's resolver.

    Whoever implements it connects to no address that is forbidden, whatever a name means when it is looked up.
    """

    def __call__(
        self, lookup: Lookup | None, lookups: Executor, trusted: ssl.SSLContext, *, loopback: Loopback
    ) -> Session: ...


class Network:
    """Owns its threads. `lookup`, `trusted`: in place of the system's resolver, and of its certificate authorities."""

    def __init__(
        self, load: Callable[[], MakeSession], lookup: Lookup | None = None, trusted: ssl.SSLContext | None = None
    ) -> None:
        """`load`: called on a thread, for the first request, so that who sends none does without the library."""
        self._load = load
        self._lookup = lookup
        self._trusted = trusted
        self._threads = ThreadPoolExecutor(_LOOKUP_THREADS, thread_name_prefix="lookup")

    async def session(self, *, loopback: Loopback) -> Session:
        """A new one."""
        loop = asyncio.get_running_loop()
        # Not on the lookups' threads, where names may keep it waiting.
        make = await loop.run_in_executor(None, self._load)
        if self._trusted is None:
            self._trusted = await loop.run_in_executor(None, ssl.create_default_context)
        return make(self._lookup, self._threads, self._trusted, loopback=loopback)

    def close(self) -> None:
        """Does not wait for lookups that hang."""
        self._threads.shutdown(wait=False, cancel_futures=True)


class Client:
    """Sends the requests of one workload's guests.

    Addresses of this machine are asked only where the list has them by themselves, with the port if it has one: neither
    `*` nor a name that means them opens them. `loopback`: in place of that rule, for tests.
    """

    def __init__(self, network: Network, allowed_hosts: Iterable[str], *, loopback: Loopback | None = None) -> None:
        self._network = network
        self._allowed = tuple(allowed_hosts)
        self._loopback: Loopback = loopback or self._is_named
        self._session: asyncio.Task[Session] | None = None

    def allow(self, allowed_hosts: Iterable[str]) -> None:
        """These from now on, and no others; what is being sent goes on."""
        self._allowed = tuple(allowed_hosts)

    def _is_named(self, address: str, port: int) -> bool:
        return is_named(address, port, self._allowed)

    def problem(self, scheme: str, authority: str) -> str | None:
        """The error-code without payload for what can't or may not be asked, as far as its name goes."""
        parts = _AUTHORITY.match(authority)
        if parts is None:
            return "HTTP-request-URI-invalid"
        host, port = parts[1].strip("[]"), int(parts[2] or _PORTS[scheme])
        if not 0 < port < 65536:
            return "HTTP-request-URI-invalid"
        return None if is_allowed(host, port, self._allowed) else "HTTP-request-denied"

    async def exchange(self, sending: Sending) -> None:
        """See Exchanged."""
        if self._session is None:
            self._session = asyncio.ensure_future(self._network.session(loopback=self._loopback))
        try:
            session = await asyncio.shield(self._session)
        except OSError as error:
            self._session = None
            raise SendingError(("internal-error", None), f"no connection can be made: {error}") from error
        await session.exchange(sending)

    async def close(self) -> None:
        """Once nothing is being sent."""
        if self._session is not None:
            with suppress(OSError):
                await (await self._session).close()


class Outbox:
    """Owns what one instance sends."""

    def __init__(self, client: Client, most: int = SENDING_MOST) -> None:
        self._client = client
        self._most = most
        self._sending: set[Sending] = set()

    def problem(self, scheme: str, authority: str) -> str | None:
        """As Client's, and `connection-limit-reached`."""
        if len(self._sending) >= self._most:
            return "connection-limit-reached"
        return self._client.problem(scheme, authority)

    def send(self, request: Request, upload: Upload | None) -> Sending:
        """Begins; what has a problem may not be sent."""
        sending = Sending(self._client.exchange, request, upload, lambda: self._sending.discard(sending))
        self._sending.add(sending)
        return sending

    def close(self) -> None:
        """The instance ends, and everything that it sends. Idempotent."""
        for sending in list(self._sending):
            sending.close()
