"""One request: an instance is asked for, the handler called once in it, and the slot given back."""

import asyncio
from typing import Final, Protocol

from wasmpool_agent.http import Exchange
from wasmpool_agent.http.network import Outbox
from wasmpool_agent.protocol import Result
from wasmpool_agent.wasi.p2.http_types import Answering, incoming
from wasmpool_agent.wasmtime_async import GuestTrap
from wasmpool_agent.worker.component import Guest
from wasmpool_agent.worker.revision import Revision
from wasmpool_agent.worker.supply import Made, MakeFailure, Ticket

_WORDS: Final = {504: "the deadline has passed", 503: "going away"}
"""What a client is told. What went wrong inside is for the workload's own log and status."""


class Site(Protocol):
    """The workload that was asked."""

    @property
    def current(self) -> Revision | None:
        """Who takes the next request."""
        ...


def unavailable(exchange: Exchange, why: str) -> None:
    """Answers 503, and when to come again."""
    exchange.plain(503, why, [("retry-after", b"1")])


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
        # NB: from here on: that there was no slot for a while is nothing that the guest could do about.
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(revision.told.deadline_seconds, self._deadline)
        guest = made.what
        assert isinstance(guest, Guest)  # noqa: S101 - what the maker makes
        guest.host.http = Answering(self._exchange, Outbox(revision.client))
        try:
            call = guest.instance.call(revision.handler, "handle", *incoming(self._exchange))
        except Exception as error:  # noqa: BLE001 - whatever a component's types lead to is that workload's alone
            self._fail(Result.ERROR, 500, f"the component's handler can't be called: {error!r}")
            return
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
        late = isinstance(error, TimeoutError)
        self._fail(
            Result.DEADLINE if late else Result.ERROR,
            504 if late else 500,
            f"no instance could be made: {message}",
            backtrace,
        )

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
        unavailable(self._exchange, "every slot of this workload is in use")
        self._close(503)

    def _fail(self, result: Result, status: int, message: str, backtrace: str = "") -> None:
        if self._over:
            return
        if self._revision is not None:
            self._revision.failed(result, message, backtrace)
        answered = self._exchange.responded
        self._end_guest()
        self._exchange.plain(status, _WORDS.get(status, "the guest failed"))
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
