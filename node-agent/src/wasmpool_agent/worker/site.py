"""Workloads that answer requests, in one worker: one request after another, each with an instance of its own.

    site         a workload: its listener, its clients, its revisions
    revision     made, answering, withdrawn; of several that answer, the newest takes the requests (`revision`)
    request      a slot and an instance in it (`supply`), one call of the handler, the slot given back (`request`)

A request's instance ends with the call, at its deadline, or when its client has gone; what is left of the answer goes
out without it.
"""

import asyncio
import socket
from collections import deque
from typing import Final

from wasmpool_agent.http import Connection, Exchange, Limits
from wasmpool_agent.worker.request import Request, unavailable
from wasmpool_agent.worker.revision import Revision
from wasmpool_agent.worker.supply import TOKEN_SECONDS

ACCEPT_PATIENCE_SECONDS: Final = 0.02
"""For so long a client is left to another worker that may have a slot; then it waits here."""
ACCEPT_POLL_SECONDS: Final = 0.002
CLIENTS_MOST: Final = 4096


class Site:
    """A workload in this worker. Implements http.Site."""

    def __init__(self, listener: socket.socket) -> None:
        """Takes the listener over."""
        self.limits = Limits()
        self.revisions: dict[str, Revision] = {}
        self._listener = listener
        self._clients: set[Connection] = set()
        self._loop = asyncio.get_running_loop()
        self._since: float | None = None
        self._expected: deque[float] = deque()
        """When clients were accepted that have not asked yet: each is to have a slot, for as long as tokens last."""
        self._accepting = False
        self._retry: asyncio.TimerHandle | None = None

    @property
    def current(self) -> Revision | None:
        """Who takes the next request."""
        answering = [it for it in self.revisions.values() if it.answering]
        return max(answering, key=lambda it: (not it.told.outdated, it.told.workload_id), default=None)

    def answers(self) -> None:
        """A revision has begun to answer."""
        self._listen(begin=True)

    def gone(self, revision: Revision) -> None:
        """Nothing of it is left."""
        self.revisions.pop(revision.told.revision, None)
        if self.current is None:
            self._listen(begin=False)
        if not self.revisions:
            self.close()

    def handle(self, exchange: Exchange) -> None:
        """See http.Site."""
        if self._expected:
            self._expected.popleft()
        revision = self.current
        if revision is None:
            unavailable(exchange, "no revision of this workload answers now")
            return
        Request(self, exchange).ask(revision)

    def opened(self, connection: Connection) -> None:
        """See http.Site."""
        self._clients.add(connection)

    def closed(self, connection: Connection) -> None:
        """See http.Site."""
        self._clients.discard(connection)

    def close(self) -> None:
        """Idempotent. Clients are answered and sent away."""
        self._listen(begin=False)
        for client in list(self._clients):
            client.close()
        self._listener.close()

    def _listen(self, *, begin: bool) -> None:
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None
        if begin != self._accepting and self._listener.fileno() >= 0:
            self._accepting = begin
            if begin:
                self._loop.add_reader(self._listener, self._accept)
            else:
                self._loop.remove_reader(self._listener)

    def _accept(self) -> None:
        revision = self.current
        if revision is None or len(self._clients) >= CLIENTS_MOST:
            self._later()
            return
        now = self._loop.time()
        while self._expected and self._expected[0] < now - TOKEN_SECONDS:
            self._expected.popleft()
        # Who has no slot for the next request leaves it to a worker that has, if there is one.
        if not revision.supply.able(len(self._expected)):
            self._since = self._since or now
            if now < self._since + ACCEPT_PATIENCE_SECONDS:
                self._later()
                return
        self._since = None
        # NB: one, and then the loop's other work: of clients that come together, a worker that is free takes the next.
        try:
            client, _ = self._listener.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return
        except OSError:  # no more descriptors: those who have one will give it back
            self._later()
            return
        self._expected.append(now)
        client.setblocking(False)
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        task = self._loop.create_task(self._loop.connect_accepted_socket(self._connection, client))
        task.add_done_callback(_looked_at)

    def _connection(self) -> Connection:
        return Connection(self, self._loop)

    def _later(self) -> None:
        self._listen(begin=False)
        self._retry = self._loop.call_later(ACCEPT_POLL_SECONDS, self.answers)


def _looked_at(task: "asyncio.Task[object]") -> None:
    if not task.cancelled():
        task.exception()  # a client that has gone before it was looked at
