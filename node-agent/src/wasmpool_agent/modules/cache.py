"""The store, for the event loop: in threads, counted, and never a reason to fail: what can't be kept is made again."""

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path

from wasmpool_agent.metrics import Metrics
from wasmpool_agent.modules.store import Kind, Store

log = logging.getLogger(__name__)


class Cache:
    """Modules and compiled code. What is pinned is not evicted."""

    def __init__(self, store: Store, metrics: Metrics) -> None:
        self._store = store
        self._metrics = metrics
        self._pinned: dict[str, str] = {}

    @property
    def downloads(self) -> Path:
        """See `Store`."""
        return self._store.downloads

    def pin(self, key: str, digest: str) -> None:
        """This compiled code runs, and it was made of this module."""
        self._pinned[key] = digest

    def unpin(self, key: str) -> None:
        """It does not run any more."""
        self._pinned.pop(key, None)

    async def module(self, digest: str) -> bytes | None:
        """A module that was kept, whole and unchanged."""
        return await self._look(Kind.MODULE, self._store.module, digest)

    async def compiled(self, key: str) -> bytes | None:
        """Compiled code that was kept, whole and unchanged."""
        return await self._look(Kind.COMPILED, self._store.compiled, key)

    async def keep_module(self, data: bytes) -> None:
        """If the disk lets it."""
        try:
            await asyncio.to_thread(self._store.keep_module, data)
        except OSError as error:
            log.warning("the cache can't be written: %s", error)
        await self.make_room()

    async def keep_compiled(self, key: str, code: bytes) -> None:
        """If the disk lets it."""
        try:
            await asyncio.to_thread(self._store.keep_compiled, key, code)
        except OSError as error:
            log.warning("the cache can't be written: %s", error)
        await self.make_room()

    def drop_compiled(self, key: str) -> None:
        """A worker could not load it."""
        try:
            self._store.drop_compiled(key)
        except OSError as error:
            log.warning("the cache can't be written: %s", error)

    async def make_room(self) -> None:
        """Evicts what was not used for longest, until the rest is within the bound."""
        try:
            removed = await asyncio.to_thread(
                self._store.prune, frozenset(self._pinned.values()), frozenset(self._pinned)
            )
            sizes = await asyncio.to_thread(self._store.sizes)
        except OSError as error:
            log.warning("the cache can't be pruned: %s", error)
            return
        self._metrics.evicted(removed)
        self._metrics.cache_sizes(sizes)

    async def _look(self, kind: Kind, look: Callable[[str], bytes | None], name: str) -> bytes | None:
        try:
            found = await asyncio.to_thread(look, name)
        except OSError as error:
            log.warning("the cache can't be read: %s", error)
            found = None
        self._metrics.cache_asked(kind, hit=found is not None)
        return found
