"""One revision of a workload in one worker: probed, answering, withdrawn; and what it has counted."""

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Protocol

from wasmpool_agent.http.network import Client
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
from wasmpool_agent.wasmtime_async import GuestTrap
from wasmpool_agent.worker.scheduler import Scheduler
from wasmpool_agent.worker.supply import Made, MakeFailure, Supply, Ticket

MAKE_AGAIN_SECONDS: Final = 1.0
TRAPS_SECONDS: Final = 1.0

Said = Serving | ServeFailed | Trapped | Starved | Withdrawn


class Home(Protocol):
    """The workload that a revision is of."""

    def answers(self) -> None:
        """A revision has begun to answer."""
        ...

    def gone(self, revision: "Revision") -> None:
        """Nothing of it is left."""
        ...


class Asking(Protocol):
    """A request that a revision answers, or will."""

    def end(self, why: str) -> None:
        """At once."""
        ...


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
        site: Home,
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
        supply.on_empty = self.look
        self.client = client
        self.scheduler = scheduler
        self.counts = Counts()
        self.requests: set[Asking] = set()
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
        if self.withdrawing and not self.supply.live and not self.requests and self._closing is None:
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
