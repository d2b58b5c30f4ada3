"""Turns at what few may do at once, shared fairly: one tenant's slow registries take no turn from the others."""

import asyncio
from collections import Counter, deque
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager


class Turns:
    """`most` at a time; of one scope `of_one`, for another may come at any moment.

    Whose scope has the fewest turns comes first, and among those who came first.
    """

    def __init__(self, most: int, of_one: int) -> None:
        self._most = most
        self._of_one = of_one
        self._taken: Counter[str] = Counter()
        self._waiting: deque[tuple[str, asyncio.Future[None]]] = deque()

    @property
    def waiting(self) -> int:
        """How many wait for theirs."""
        return len(self._waiting)

    @asynccontextmanager
    async def turn(self, scope: str) -> AsyncGenerator[None]:
        """Waits for one, and has it until it is left."""
        mine: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        entry = (scope, mine)
        self._waiting.append(entry)
        self._deal()
        try:
            await mine
            yield
        finally:
            if entry in self._waiting:
                self._waiting.remove(entry)
            else:
                self._taken[scope] -= 1
                if not self._taken[scope]:
                    del self._taken[scope]
            self._deal()

    def _deal(self) -> None:
        while self._taken.total() < self._most:
            able = [entry for entry in self._waiting if self._taken[entry[0]] < self._of_one]
            if not able:
                return
            entry = min(able, key=lambda it: self._taken[it[0]])
            self._waiting.remove(entry)
            scope, future = entry
            self._taken[scope] += 1
            if not future.done():
                future.set_result(None)
