"""Instances of one revision that answers requests: made ahead or when asked for, each used once.

    asked      an instance made ahead, else a slot and an instance in it, else a place in the queue
    retired    the store is closed, which wipes the memories, and the slot is given back

The queue is first in, first out, and bounded in time. Slots are shared with other workers, which do not say when they
give one back, so while somebody waits here the table is asked again every POLL_SECONDS.
"""

import asyncio
import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Final, Protocol

import wasmtime

from wasmpool_agent.allocators import InstanceAllocator, NoFreeSlotError, Slot
from wasmpool_agent.wasmtime_async import GuestTrap
from wasmpool_agent.worker.scheduler import CpuClock, Polled, Running, Scheduler

POLL_SECONDS: Final = 0.002
STARVED_SECONDS: Final = 0.1
TOKEN_SECONDS: Final = 0.05
REPLACE_SECONDS: Final = 0.02
"""Until one that was made ahead and taken is replaced, if no instance ends before: what takes it is served first."""
GIVE_WAY_SECONDS: Final = 1.0
"""Nothing is made ahead for so long after another worker has asked for slots."""
RATE_SECONDS: Final = 5.0
"""Over which the rate of requests is averaged."""

MakeFailure = GuestTrap | wasmtime.WasmtimeError | OSError


@dataclass(slots=True, eq=False)
class Made:
    """An instance and all that it holds. `what`: the program's; `ahead`: it was there before it was asked for."""

    slot: Slot
    store: wasmtime.Store
    cpu: CpuClock
    running: Running | None = None
    what: "Instance | None" = None
    ahead: bool = False
    making: asyncio.TimerHandle | None = None


class Instance(Protocol):
    """What is made: see `canonical` and `component_api`, which implement it."""

    def close(self) -> None:
        """What the guest left open is closed. Idempotent; before the store's."""
        ...


class Maker(Protocol):
    """Makes instances of one revision."""

    def store(self) -> wasmtime.Store:
        """With its limits and its epoch set."""
        ...

    def begin(self, made: Made, slot: Slot) -> Polled:
        """Sets `made.what` and gives its instantiation."""
        ...


@dataclass(slots=True, eq=False)
class Ticket:
    """Somebody who asked: exactly one of the three is called, unless it is cancelled before."""

    got: Callable[[Made], None]
    failed: Callable[[MakeFailure], None]
    expired: Callable[[], None]
    over: bool = False
    timer: asyncio.TimerHandle | None = None

    def cancel(self) -> None:
        """Idempotent. An instance that is being made for it goes to the next one."""
        self.over = True
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None


@dataclass(slots=True)
class Rate:
    """Requests per second, averaged with a time constant of RATE_SECONDS."""

    value: float = 0.0
    at: float = 0.0

    def count(self, now: float) -> None:
        """One more."""
        self.value = self.now(now) + 1 / RATE_SECONDS
        self.at = now

    def now(self, now: float) -> float:
        """As it is."""
        return self.value * math.exp((self.at - now) / RATE_SECONDS)


@dataclass(slots=True)
class Supply:
    """Invariant: a slot that this holds is a made or half-made instance's, in `live`, or for one who is to ask soon."""

    allocator: InstanceAllocator
    scheduler: Scheduler
    maker: Maker
    workload_id: int
    module: int
    queue_seconds: float
    most_ready: int
    on_starved: Callable[[], None]
    making_seconds: float = math.inf
    """The most that the instantiation of one may take: a guest may spin there, too."""
    live: set[Made] = field(default_factory=set[Made])
    closed: bool = False
    on_empty: Callable[[], None] = lambda: None
    """Called when `live` has become empty."""
    make_seconds: float = 0.0
    """Of one instance, the longest lately."""
    replace_seconds: float = REPLACE_SECONDS
    _ready: deque[Made] = field(default_factory=deque[Made])
    _in_hand: list[Slot] = field(default_factory=list[Slot])
    _waiting: deque[Ticket] = field(default_factory=deque[Ticket])
    _rate: Rate = field(default_factory=Rate)
    _poll: asyncio.TimerHandle | None = None
    _replacing: asyncio.TimerHandle | None = None
    _starved_at: float = -math.inf
    _not_ahead_before: float = -math.inf
    _making_ahead: int = 0

    @property
    def ready(self) -> int:
        """How many have been made ahead."""
        return len(self._ready)

    @property
    def queued(self) -> int:
        """Who waits for a slot."""
        return len(self._waiting)

    def able(self, already: int) -> bool:
        """Whether one more who asks soon gets an instance at once, beside so many who will.

        A slot that this takes is kept in hand for TOKEN_SECONDS.
        """
        if self._waiting:
            return False
        if len(self._ready) + len(self._in_hand) > already:
            return True
        slot = self._take()
        if slot is None:
            return False
        self._in_hand.append(slot)
        asyncio.get_running_loop().call_later(TOKEN_SECONDS, self._give_back, slot)
        return True

    def keep(self, made: Made) -> None:
        """It was not needed after all."""
        self._hand_on(made)

    def ask(self, ticket: Ticket) -> None:
        """Its answer may come before this returns."""
        loop = asyncio.get_running_loop()
        self._rate.count(loop.time())
        if self._ready:
            made = self._ready.popleft()
            made.ahead = True
            if self._replacing is None:
                self._replacing = loop.call_later(self.replace_seconds, self._replace)
            ticket.got(made)
            return
        self._waiting.append(ticket)
        self._pump()
        if ticket in self._waiting:
            ticket.timer = loop.call_later(self.queue_seconds, self._expire, ticket)

    def retire(self, made: Made) -> None:
        """Ends it, wherever it is, and gives its slot back."""
        self._discard(made)
        self._pump()
        if not self._waiting and len(self._ready) + self._making_ahead < self.most_ready:
            asyncio.get_running_loop().call_soon(self.replenish)

    def replenish(self) -> None:
        """Makes instances ahead, where nobody waits, up to what the rate asks for."""
        now = asyncio.get_running_loop().time()
        while (
            not self.closed
            and not self._waiting
            and now >= self._not_ahead_before
            and len(self._ready) + self._making_ahead < self._wanted(now)
            and (slot := self._take()) is not None
        ):
            self._making_ahead += 1
            self._make(slot, None)

    def give_way(self) -> None:
        """Drops what was made ahead."""
        self._not_ahead_before = asyncio.get_running_loop().time() + GIVE_WAY_SECONDS
        while self._ready:
            self._discard(self._ready.popleft())
        asyncio.get_running_loop().call_later(GIVE_WAY_SECONDS, self.replenish)

    def close(self) -> None:
        """Nobody is waited for and nothing is made ahead any more; what is in use stays. Idempotent."""
        self.closed = True
        self.most_ready = 0
        if self._poll is not None:
            self._poll.cancel()
            self._poll = None
        if self._replacing is not None:
            self._replacing.cancel()
            self._replacing = None
        while self._waiting:
            self._expire(self._waiting[0])
        while self._ready:
            self._discard(self._ready.popleft())
        for slot in list(self._in_hand):
            self._give_back(slot)

    def _replace(self) -> None:
        self._replacing = None
        self.replenish()

    def _wanted(self, now: float) -> int:
        return min(self.most_ready, 1 + math.ceil(self._rate.now(now) * self.make_seconds))

    def _give_back(self, slot: Slot) -> None:
        if slot in self._in_hand:
            self._in_hand.remove(slot)
            self.allocator.deallocate(slot)
            self._pump()

    def _take(self) -> Slot | None:
        try:
            return self.allocator.allocate(self.workload_id, self.module)
        except NoFreeSlotError:
            return None

    def _pump(self) -> None:
        if self._poll is not None:
            self._poll.cancel()
            self._poll = None
        while self._waiting:
            if self._waiting[0].over:
                self._waiting.popleft()
                continue
            slot = self._in_hand.pop() if self._in_hand else self._take()
            if slot is None:
                self._wait()
                return
            self._make(slot, self._waiting.popleft())

    def _wait(self) -> None:
        loop = asyncio.get_running_loop()
        if not self.closed:
            self._poll = loop.call_later(POLL_SECONDS, self._pump)
        if loop.time() >= self._starved_at + STARVED_SECONDS:
            self._starved_at = loop.time()
            self.on_starved()

    def _expire(self, ticket: Ticket) -> None:
        if ticket in self._waiting:
            self._waiting.remove(ticket)
        if not ticket.over:
            ticket.cancel()
            ticket.expired()

    def _make(self, slot: Slot, ticket: Ticket | None) -> None:
        began = asyncio.get_running_loop().time()
        if ticket is not None and ticket.timer is not None:
            ticket.timer.cancel()
            ticket.timer = None
        try:
            store = self.maker.store()
        except (wasmtime.WasmtimeError, OSError) as error:
            self.allocator.deallocate(slot)
            self._not_made(ticket, error)
            return
        made = Made(slot, store, CpuClock(_monotonic_ns))
        self.live.add(made)
        try:
            call = self.maker.begin(made, slot)
        except (GuestTrap, wasmtime.WasmtimeError, OSError) as error:
            self._discard(made)
            self._not_made(ticket, error)
            return
        made.running = self.scheduler.begin(call, made.cpu, partial(self._end_of_making, made, ticket, began))
        if self.making_seconds < math.inf:
            made.making = asyncio.get_running_loop().call_later(self.making_seconds, self._made_too_long, made, ticket)

    def _made_too_long(self, made: Made, ticket: Ticket | None) -> None:
        self._discard(made)
        self._not_made(ticket, TimeoutError(f"its instantiation took more than {self.making_seconds:g} s"))
        self._pump()

    def _end_of_making(self, made: Made, ticket: Ticket | None, began: float, error: Exception | None) -> None:
        made.running = None
        if made.making is not None:
            made.making.cancel()
            made.making = None
        self.make_seconds = max(self.make_seconds * 0.9, asyncio.get_running_loop().time() - began)
        if error is not None:
            self._discard(made)
            self._not_made(ticket, error if isinstance(error, MakeFailure) else OSError(str(error)))
            return
        if ticket is None:
            self._making_ahead -= 1
        elif not ticket.over:
            ticket.got(made)
            return
        self._hand_on(made)

    def _hand_on(self, made: Made) -> None:
        """It has nobody: to the first who waits, or kept."""
        while self._waiting:
            ticket = self._waiting.popleft()
            if not ticket.over:
                if ticket.timer is not None:
                    ticket.timer.cancel()
                    ticket.timer = None
                ticket.got(made)
                return
        if len(self._ready) < self.most_ready:
            self._ready.append(made)
        else:
            self.retire(made)

    def _not_made(self, ticket: Ticket | None, error: MakeFailure) -> None:
        if ticket is None:
            self._making_ahead -= 1
            self._not_ahead_before = asyncio.get_running_loop().time() + GIVE_WAY_SECONDS
        elif not ticket.over:
            ticket.over = True
            ticket.failed(error)

    def _discard(self, made: Made) -> None:
        # NB: nothing is awaited in here, so that what is wiped meanwhile is this guest's alone.
        if made in self.live:
            self.live.discard(made)
            if made.making is not None:
                made.making.cancel()
                made.making = None
            if made.running is not None:
                self.scheduler.end(made.running)
                made.running = None
            if made.what is not None:
                made.what.close()
            made.store.close()
            self.allocator.deallocate(made.slot)
            if not self.live:
                self.on_empty()


def _monotonic_ns() -> int:
    return int(asyncio.get_running_loop().time() * 1e9)
