"""Bytes of modules that may be in memory at a time, however many claims are being prepared."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager


class Budget:
    """First come, first served, so that a large one is not passed by small ones for ever. Used on one event loop.

    Invariant: what is taken is at most `most_bytes`. Whoever has a share asks for no second one, or may wait for ever.
    """

    def __init__(self, most_bytes: int) -> None:
        self._most = most_bytes
        self._taken = 0
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    @property
    def taken_bytes(self) -> int:
        """At present."""
        return self._taken

    @asynccontextmanager
    async def of(self, size_bytes: int) -> AsyncGenerator[None]:
        """Once there is room for so much; what is larger than all of it has it alone."""
        share = min(size_bytes, self._most)
        await self._take(share)
        try:
            yield
        finally:
            self._taken -= share
            self._deal()

    async def _take(self, share: int) -> None:
        if not self._waiting and self._taken + share <= self._most:
            self._taken += share
            return
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append((share, turn))
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():  # it was dealt, and nobody takes it
                self._taken -= share
            elif (share, turn) in self._waiting:  # it may have been passed over already
                self._waiting.remove((share, turn))
            self._deal()
            raise

    def _deal(self) -> None:
        while self._waiting and self._taken + self._waiting[0][0] <= self._most:
            share, turn = self._waiting.popleft()
            if not turn.cancelled():
                self._taken += share
                turn.set_result(None)
