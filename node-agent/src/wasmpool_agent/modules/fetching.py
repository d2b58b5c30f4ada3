"""The module of a revision: as its source has it now, or as the revision pins it."""

import asyncio
import logging
import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

from wasmpool_agent.compiler import memfd
from wasmpool_agent.modules.budget import Budget
from wasmpool_agent.modules.cache import Cache
from wasmpool_agent.modules.images import Images
from wasmpool_agent.modules.pulled import Pulled
from wasmpool_agent.modules.sources import PullFailedError, Sources, digest_of
from wasmpool_agent.threads import in_thread
from wasmpool_api.reasons import Waiting
from wasmpool_api.revisions import Revision

CONFIG_MAP_MOST_BYTES: Final = 256 * 1024**2
CONFIG_MAPS: Final = 8
"""At a time: how large one is, nobody says beforehand, and the API server's answer is several times as large."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Fetched:
    """`image`: where it was found, by that artifact's own digest; empty for what is in a ConfigMap."""

    data: bytes
    image: str = ""


class Modules:
    """Every method raises PullFailedError. `memory`: what modules may take at a time, in bytes.

    What a context manager gives is in memory for as long as it is open: nobody should wait for anything in there.
    """

    def __init__(self, sources: Sources, images: Images, cache: Cache, pulled: Pulled, memory: Budget) -> None:
        self._sources = sources
        self._images = images
        self._cache = cache
        self._pulled = pulled
        self._memory = memory
        self._config_maps = asyncio.Semaphore(CONFIG_MAPS)

    @asynccontextmanager
    async def newest(self, revision: Revision) -> AsyncGenerator[Fetched]:
        """What the source has now; a tag is resolved anew."""
        if revision.module.image is not None:
            image, digest = await self._images.newest(revision)
            async with self._read(revision, digest) as data:
                yield Fetched(data, image)
        else:
            async with self._in_config_map(revision) as data:
                yield Fetched(data)

    @asynccontextmanager
    async def pinned(self, revision: Revision) -> AsyncGenerator[bytes]:
        """The module with the revision's digest and no other."""
        if revision.module.image is not None:
            await self._images.pinned(revision)
        elif not await self._kept(revision):
            async with self._pinned_in_config_map(revision) as data:
                await self.keep(revision, data)
                yield data
            return
        async with self._read(revision, revision.digest) as data:
            yield data

    async def opened(self, revision: Revision) -> int:
        """The module that `pinned` has just given, without the wait for its source; a descriptor, the caller's."""
        fd = await self._cache.open_module(revision.digest)
        if fd is not None:
            return fd
        if revision.module.config_map is None:
            raise _gone(revision)
        async with self._pinned_in_config_map(revision) as data:  # a disk that takes nothing
            return await in_thread(lambda: memfd("wasmpool-module", data), os.close)

    async def keep(self, revision: Revision, data: bytes) -> None:
        """A ConfigMap's module that will be wanted again."""
        try:
            digest = await self._cache.keep_module(data)
        except OSError as error:
            log.warning("the cache can't be written: %s", error)
            return
        await in_thread(lambda: self._pulled.learn_read(revision.workload_namespace, digest))

    async def _kept(self, revision: Revision) -> bool:
        """Whether it is in the cache, and a ConfigMap of the same namespace has had it."""
        namespace, digest = revision.workload_namespace, revision.digest
        if not await in_thread(lambda: self._pulled.was_read(namespace, digest)):
            return False
        return await self._cache.has_module(digest)

    @asynccontextmanager
    async def _read(self, revision: Revision, digest: str) -> AsyncGenerator[bytes]:
        size = await self._cache.module_bytes(digest) or 0
        async with self._memory.of(size, revision.workload_namespace):
            data = await self._cache.module(digest)
            if data is None:
                raise _gone(revision)
            yield data

    @asynccontextmanager
    async def _pinned_in_config_map(self, revision: Revision) -> AsyncGenerator[bytes]:
        async with self._in_config_map(revision) as data:
            found, source = await in_thread(lambda: digest_of(data)), revision.module.config_map
            if found != revision.digest:
                where = (
                    f"ConfigMap {revision.workload_namespace}/{source.name}, key {source.key}" if source else "module"
                )
                raise PullFailedError(
                    Waiting.MODULE_PULL_FAILED,
                    f"{where} has another module than this revision pins: "
                    f"{found} is there, {revision.digest} is wanted",
                )
            yield data

    @asynccontextmanager
    async def _in_config_map(self, revision: Revision) -> AsyncGenerator[bytes]:
        async with self._config_maps:
            data = await self._sources.module(revision)
            if len(data) > CONFIG_MAP_MOST_BYTES:
                raise PullFailedError(
                    Waiting.MODULE_PULL_FAILED,
                    f"module: {len(data)} bytes are given, {CONFIG_MAP_MOST_BYTES} are allowed",
                )
            async with self._memory.of(len(data), revision.workload_namespace):
                yield data


def _gone(revision: Revision) -> PullFailedError:
    return PullFailedError(
        Waiting.MODULE_PULL_FAILED,
        f"module {revision.digest or revision.module.image}: it went from the agent's cache, where there is too little "
        "room (spec.agent.cache.sizeLimit), or was changed there; it is fetched again",
    )
