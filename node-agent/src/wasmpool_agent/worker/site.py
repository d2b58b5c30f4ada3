"""Workloads that answer requests, in one worker: one request after another, each with an instance of its own.

    site         a workload: its listener, its clients, its revisions
    revision     made, answering, withdrawn; of several that answer, the newest takes the requests
    request      a slot and an instance in it (`supply`), one call of the handler, the slot given back

A request's instance ends with the call, at its deadline, or when its client has gone; what is left of the answer goes
out without it.
"""

import asyncio
import socket
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from wasmpool_agent.http import Connection, Exchange, Limits
from wasmpool_agent.http.network import Client, Outbox
from wasmpool_agent.protocol import (
    LATENCY_BUCKETS,
    MAX_BACKTRACE_CHARS,
    MAX_TEXT_CHARS,
    Result,
    Serve,
    ServeFailed,
    Serving,
    SiteCounts,
    Starved,
    Trapped,
    Withdrawn,
)
from wasmpool_agent.wasi.p2.http_types import Answering, incoming
from wasmpool_agent.wasmtime_async import GuestTrap
from wasmpool_agent.worker.component import Guest
from wasmpool_agent.worker.scheduler import Scheduler
from wasmpool_agent.worker.supply import TOKEN_SECONDS, Made, MakeFailure, Supply, Ticket

ACCEPT_PATIENCE_SECONDS: Final = 0.02
"""For so long a client is left to another worker that may have a slot; then it waits here."""
ACCEPT_POLL_SECONDS: Final = 0.002
CLIENTS_MOST: Final = 4096
MAKE_AGAIN_SECONDS: Final = 1.0
_WORDS: Final = {504: "the deadline has passed", 503: "this workload is going away"}
TRAPS_SECONDS: Final = 1.0

Said = Serving | ServeFailed | Trapped | Starved | Withdrawn


@dataclass(slots=True)
class Counts:
    """As SiteCounts has them."""

    rejected: int = 0
    made_ahead: int = 0
    seconds_sum: float = 0.0
    seconds: list[int] = field(default_factory=lambda: [0] * (len(LATENCY_BUCKETS) + 1))
    answers: Counter[int] = field(default_factory=Counter[int])
    results: Counter[Result] = field(default_factory=Counter[Result])

    def answered(self, status: int, seconds: float) -> None:
        """One more."""
        self.answers[status] += 1
        self.seconds_sum += seconds
        bucket = next((n for n, bound in enumerate(LATENCY_BUCKETS) if seconds <= bound), len(LATENCY_BUCKETS))
        self.seconds[bucket] += 1


class Revision:
    """One revision of a workload. `handler`: under what name its component exports the handler.

    `client`: by whom its instances send requests.
    """

    def __init__(
        self,
        site: "Site",
        told: Serve,
        handler: str,
        supply: Supply,
        scheduler: Scheduler,
        client: Client,
        post: Callable[[Said], None],
    ) -> None:
        self.told = told
        self.handler = handler
        self.supply = supply
        self.client = client
        self.scheduler = scheduler
        self.counts = Counts()
        self.requests: set[Request] = set()
        self.answering = False
        self.withdrawing = False
        self._site = site
        self._post = post
        self._probe: Ticket | None = None
        self._trapped_at = -TRAPS_SECONDS
        self._timer: asyncio.TimerHandle | None = None
        self._closing: asyncio.Future[None] | None = None

    def probe(self) -> None:
        """Makes an instance, to see whether it can be made. It is kept if some are made ahead, and dropped if not."""
        self._timer = None
        self._probe = Ticket(self._made, self._not_made, self._no_slot)
        self.supply.ask(self._probe)

    def failed(self, result: Result, message: str, backtrace: str = "") -> None:
        """A request's instance did not end well."""
        self.counts.results[result] += 1
        now = asyncio.get_running_loop().time()
        if now >= self._trapped_at + TRAPS_SECONDS:
            self._trapped_at = now
            self._post(
                Trapped(
                    site=self.told.site,
                    revision=self.told.revision,
                    result=result,
                    message=message[:MAX_TEXT_CHARS],
                    backtrace=backtrace[:MAX_BACKTRACE_CHARS],
                )
            )

    def withdraw(self, grace_seconds: float) -> None:
        """Takes nothing any more. Withdrawn is said once nothing of it is left."""
        if self.withdrawing:
            return
        self.withdrawing, self.answering = True, False
        if self._probe is not None:
            self._probe.cancel()
        if self._timer is not None:
            self._timer.cancel()
        self.supply.close()
        asyncio.get_running_loop().call_later(grace_seconds, self._end_all)
        self.look()

    def look(self) -> None:
        """Whether a withdrawn revision has come to its end."""
        if self.withdrawing and not self.supply.live and not self.requests:
            self._closing = asyncio.ensure_future(self.client.close())
            self._site.gone(self)
            self._post(Withdrawn(site=self.told.site, revision=self.told.revision))

    def seen(self) -> SiteCounts:
        """For the supervisor."""
        counts = self.counts
        return SiteCounts(
            site=self.told.site,
            revision=self.told.revision,
            running=len(self.requests),
            ready=self.supply.ready,
            queued=self.supply.queued,
            rejected=counts.rejected,
            made_ahead=counts.made_ahead,
            seconds_sum=counts.seconds_sum,
            seconds=tuple(counts.seconds),
            answers=tuple(counts.answers.items()),
            results=tuple(counts.results.items()),
        )

    def _made(self, made: Made) -> None:
        self._probe = None
        self.supply.keep(made)
        self._serving()

    def _not_made(self, error: MakeFailure) -> None:
        self._probe = None
        message, backtrace = (error.message, error.backtrace) if isinstance(error, GuestTrap) else (str(error), "")
        self._post(
            ServeFailed(
                site=self.told.site,
                revision=self.told.revision,
                result=Result.ERROR,
                message=f"no instance can be made: {message}"[:MAX_TEXT_CHARS],
                backtrace=backtrace[:MAX_BACKTRACE_CHARS],
            )
        )
        self._timer = asyncio.get_running_loop().call_later(MAKE_AGAIN_SECONDS, self.probe)

    def _no_slot(self) -> None:
        self._probe = None
        if self.withdrawing:
            return
        # Without a reservation nothing says when there will be one: requests find out.
        self._serving()

    def _serving(self) -> None:
        if not self.answering and not self.withdrawing:
            self.answering = True
            self._site.answers()
            self._post(Serving(site=self.told.site, revision=self.told.revision))

    def _end_all(self) -> None:
        for request in list(self.requests):
            request.end("the workload's revision has been withdrawn")


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
            _unavailable(exchange, "no revision of this workload answers now")
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


class Request:
    """One exchange and the instance that answers it."""

    __slots__ = ("_began", "_exchange", "_made", "_over", "_revision", "_site", "_ticket", "_timer")

    def __init__(self, site: Site, exchange: Exchange) -> None:
        self._site = site
        self._exchange = exchange
        self._began = asyncio.get_running_loop().time()
        self._revision: Revision | None = None
        self._made: Made | None = None
        self._ticket: Ticket | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._over = False
        exchange.gone = self._gone

    def ask(self, revision: Revision) -> None:
        """For an instance of this revision."""
        self._revision = revision
        revision.requests.add(self)
        self._ticket = Ticket(self._got, self._not_made, self._expired)
        revision.supply.ask(self._ticket)

    def end(self, why: str) -> None:
        """At once."""
        self._fail(Result.STOPPED, 503, why)

    def _got(self, made: Made) -> None:
        revision = self._revision
        assert revision is not None  # noqa: S101 - asked
        self._ticket, self._made = None, made
        revision.counts.made_ahead += made.ahead
        loop = asyncio.get_running_loop()
        self._timer = loop.call_at(self._began + revision.told.deadline_seconds, self._deadline)
        guest = made.what
        assert isinstance(guest, Guest)  # noqa: S101 - what the maker makes
        guest.host.http = Answering(self._exchange, Outbox(revision.client))
        call = guest.instance.call(revision.handler, "handle", *incoming(self._exchange))
        made.running = revision.scheduler.begin(call, made.cpu, self._ended)

    def _ended(self, error: Exception | None) -> None:
        if self._made is not None:
            self._made.running = None
        if error is None:
            if not self._exchange.responded:
                self._fail(Result.ERROR, 500, "the guest ended without an answer")
            elif not self._exchange.answer.finished:
                self._fail(Result.ERROR, 500, "the guest ended before its answer was whole")
            else:
                self._close(self._exchange.status)
            return
        message, backtrace = (error.message, error.backtrace) if isinstance(error, GuestTrap) else (str(error), "")
        self._fail(Result.TRAP, 500, message, backtrace)

    def _deadline(self) -> None:
        revision = self._revision
        seconds = revision.told.deadline_seconds if revision is not None else 0.0
        self._timer = None
        self._fail(Result.DEADLINE, 504, f"ended at its deadline of {seconds:g} s")

    def _gone(self) -> None:
        """The client does not wait any more."""
        if not self._over:
            if self._revision is not None:
                self._revision.counts.results[Result.STOPPED] += 1
            self._close(499)

    def _not_made(self, error: MakeFailure) -> None:
        self._ticket = None
        message, backtrace = (error.message, error.backtrace) if isinstance(error, GuestTrap) else (str(error), "")
        self._fail(Result.ERROR, 500, f"no instance could be made: {message}", backtrace)

    def _expired(self) -> None:
        self._ticket = None
        revision = self._revision
        assert revision is not None  # noqa: S101 - asked
        other = self._site.current
        if revision.withdrawing and other is not None and other is not revision:
            revision.requests.discard(self)
            self.ask(other)
            revision.look()
            return
        revision.counts.rejected += 1
        _unavailable(self._exchange, "every slot of this workload is in use")
        self._close(503)

    def _fail(self, result: Result, status: int, message: str, backtrace: str = "") -> None:
        if self._over:
            return
        if self._revision is not None:
            self._revision.failed(result, message, backtrace)
        answered = self._exchange.responded
        self._end_guest()
        # What went wrong inside is for the workload's own log and status, not for whoever asks.
        self._exchange.plain(
            status, {504: "the deadline has passed", 503: "going away"}.get(status, "the guest failed")
        )
        self._close(self._exchange.status if answered else status)

    def _close(self, status: int) -> None:
        if self._over:
            return
        self._over = True
        if self._timer is not None:
            self._timer.cancel()
        if self._ticket is not None:
            self._ticket.cancel()
        self._end_guest()
        revision = self._revision
        if revision is not None:
            revision.counts.answered(status, asyncio.get_running_loop().time() - self._began)
            revision.requests.discard(self)
            revision.look()

    def _end_guest(self) -> None:
        made, self._made = self._made, None
        if made is not None and self._revision is not None:
            # NB: before what it has open is closed: an answer that it left half written is seen to by whoever ends it.
            self._exchange.gone = None
            self._revision.supply.retire(made)


def _unavailable(exchange: Exchange, why: str) -> None:
    exchange.plain(503, why, [("retry-after", b"1")])


def _looked_at(task: "asyncio.Task[object]") -> None:
    if not task.cancelled():
        task.exception()  # a client that has gone before it was looked at
