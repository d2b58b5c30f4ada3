"""Reads the whole cluster again, every few minutes and whenever a watch had to begin anew."""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable

from wasmpool_operator.ports import ClusterError

EVERY_SECONDS = 240.0
AT_MOST_EVERY_SECONDS = 15.0
RETRY_SECONDS = 2.0

_log = logging.getLogger(__name__)


class Sweeper:
    """`relist` fills the cache from complete lists; `add_all` has every pool reconciled."""

    def __init__(self, relist: Callable[[], Awaitable[None]], add_all: Callable[[], None], rng: random.Random) -> None:
        self._relist = relist
        self._add_all = add_all
        self._rng = rng
        self._asked = asyncio.Event()

    def relisted(self) -> None:
        """A watch began anew: what was deleted meanwhile will never be told."""
        self._asked.set()

    async def first(self) -> None:
        """Returns once everything has been read. Waits through errors of the API server."""
        while not await self._sweep():  # noqa: ASYNC110 - a retry, not a wait for a flag
            await asyncio.sleep(RETRY_SECONDS)

    async def run(self) -> None:
        """Sweeps for ever."""
        while True:
            await asyncio.sleep(AT_MOST_EVERY_SECONDS)
            left = (EVERY_SECONDS - AT_MOST_EVERY_SECONDS) * self._rng.uniform(0.8, 1.2)
            try:
                async with asyncio.timeout(left):
                    await self._asked.wait()
            except TimeoutError:
                pass  # nobody asked; it is time all the same
            self._asked.clear()
            await self._sweep()

    async def _sweep(self) -> bool:
        try:
            await self._relist()
        except (ClusterError, TimeoutError) as error:
            _log.warning("can't read the cluster: %s", error)
            self._asked.set()
            return False
        self._add_all()
        return True
