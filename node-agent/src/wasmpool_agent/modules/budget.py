"""Bytes of modules that may be in memory at a time, however many claims are being prepared."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

_Waiter = tuple[int, asyncio.Future[None]]


class Budget:
    """Scopes take turns, so that nobody waits for all that another one wants. Used on one event loop.

    Whose turn it is waits for room, so that a large one is not passed by small ones for ever. Invariant: what is taken
    is at most `most_bytes`. Whoever has a share asks for no second one, or may wait for ever.
    """

    def __init__(self, most_bytes: int) -> None:
        self._most = most_bytes
        self._taken = 0
        self._waiting: dict[str, deque[_Waiter]] = {}
        """By scope; the first scope is next."""

    @property
    def taken_bytes(self) -> int:
        """At present."""
        return self._taken

    @asynccontextmanager
    async def of(self, size_bytes: int, scope: str) -> AsyncGenerator[None]:
        """Once there is room for so much; what is larger than all of it has it alone."""
        share = min(size_bytes, self._most)
        await self._take(share, scope)
        try:
            yield
        finally:
            self._taken -= share
            self._deal()

    async def _take(self, share: int, scope: str) -> None:
        if not self._waiting and self._taken + share <= self._most:
            self._taken += share
            return
        turn = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(scope, deque()).append((share, turn))
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():  # it was dealt, and nobody takes it
                self._taken -= share
            else:
                self._forget(scope, (share, turn))
            self._deal()
            raise

    def _forget(self, scope: str, waiter: _Waiter) -> None:
        left = self._waiting.get(scope, deque())
        if waiter in left:  # it may have been passed over already
            left.remove(waiter)
        if not left:
            self._waiting.pop(scope, None)

    def _deal(self) -> None:
        while self._waiting:
            scope, queue = next(iter(self._waiting.items()))
            share, turn = queue[0]
            if not turn.cancelled():
                if self._taken + share > self._most:
                    return
                self._taken += share
                turn.set_result(None)
            queue.popleft()
            del self._waiting[scope]
            if queue:  # behind the others
                self._waiting[scope] = queue
