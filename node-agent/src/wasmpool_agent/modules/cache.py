"""The store, for the event loop: in threads, and counted. What can't be kept or read is made again.

Who may have what is in here is not asked here: see `pulled`.
"""

import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeVar

from wasmpool_agent.compiler import Sealed, memfd, seal
from wasmpool_agent.metrics import Metrics
from wasmpool_agent.modules.store import Kind, Store
from wasmpool_agent.threads import in_thread

_Found = TypeVar("_Found")
_CODE: Final = "wasmpool-artifact"

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
        return await self._look(None, lambda: self._store.module(digest))

    async def has_module(self, digest: str) -> bool:
        """Whether it was kept; whether it is unchanged is not said. Counts as a request: ask once for each need."""
        return await self._look(Kind.MODULE, lambda: self._store.module_bytes(digest)) is not None

    async def module_bytes(self, digest: str) -> int | None:
        """The size of a module that was kept."""
        return await self._look(None, lambda: self._store.module_bytes(digest))

    async def open_module(self, digest: str) -> int | None:
        """A module that was kept, whole and unchanged, as a descriptor that is the caller's."""
        return await self._look(None, lambda: self._store.open_module(digest), os.close)

    async def compiled(self, key: str) -> Sealed | None:
        """Compiled code that was kept, whole and unchanged; the descriptor is the caller's."""
        return await self._look(Kind.COMPILED, lambda: _sealed(self._store, key), lambda it: os.close(it.fd))

    async def keep_module(self, data: bytes) -> str:
        """Gives its digest. Raises OSError where the disk does not take it."""
        digest = await in_thread(lambda: self._store.keep_module(data))
        await self.make_room()
        return digest

    async def keep_compiled(self, key: str, fd: int, sha256: str) -> None:
        """If the disk lets it. `fd` is not closed, and not used any more when this ends."""
        try:
            await in_thread(lambda: self._store.keep_compiled(key, fd, sha256))
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
        digests, keys = frozenset(self._pinned.values()), frozenset(self._pinned)
        try:
            pruned = await in_thread(lambda: self._store.prune(digests, keys))
        except OSError as error:
            log.warning("the cache can't be pruned: %s", error)
            return
        self._metrics.evicted(pruned.removed)
        self._metrics.cache_sizes(pruned.sizes)

    async def _look(
        self, counted: Kind | None, look: Callable[[], _Found | None], unwanted: Callable[[_Found], None] | None = None
    ) -> _Found | None:
        def drop(found: _Found | None) -> None:
            if found is not None and unwanted is not None:
                unwanted(found)

        try:
            found = await in_thread(look, drop)
        except OSError as error:
            log.warning("the cache can't be read: %s", error)
            found = None
        if counted is not None:
            self._metrics.cache_asked(counted, hit=found is not None)
        return found


def _sealed(store: Store, key: str) -> Sealed | None:
    fd = memfd(_CODE)
    try:
        if store.compiled(key, fd):
            return seal(fd)
    except BaseException:
        os.close(fd)
        raise
    os.close(fd)
    return None
