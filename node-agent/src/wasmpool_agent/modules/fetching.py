"""The module of a revision: as its source has it now, or as the revision pins it."""

import asyncio
from dataclasses import dataclass
from typing import Final

from wasmpool_agent.modules.cache import Cache
from wasmpool_agent.modules.images import Images
from wasmpool_agent.modules.sources import PullFailedError, Sources, digest_of
from wasmpool_api.reasons import Waiting
from wasmpool_api.revisions import Revision

CONFIG_MAP_MOST_BYTES: Final = 256 * 1024**2


@dataclass(frozen=True, slots=True)
class Fetched:
    """`image`: where it was found, by that artifact's own digest; empty for what is in a ConfigMap."""

    data: bytes
    image: str = ""


class Modules:
    """Every method raises PullFailedError."""

    def __init__(self, sources: Sources, images: Images, cache: Cache) -> None:
        self._sources = sources
        self._images = images
        self._cache = cache

    async def newest(self, revision: Revision) -> Fetched:
        """What the source has now; a tag is resolved anew."""
        if revision.module.image is not None:
            image, data = await self._images.newest(revision)
            return Fetched(data, image)
        return Fetched(await self._in_config_map(revision))

    async def pinned(self, revision: Revision) -> bytes:
        """The module with the revision's digest and no other."""
        if revision.module.image is not None:
            return await self._images.pinned(revision)
        kept = await self._cache.module(revision.digest)
        if kept is not None:
            return kept
        data = await self._in_config_map(revision)
        found, source = await asyncio.to_thread(digest_of, data), revision.module.config_map
        if found != revision.digest:
            where = f"ConfigMap {revision.workload_namespace}/{source.name}, key {source.key}" if source else "module"
            raise PullFailedError(
                Waiting.MODULE_PULL_FAILED,
                f"{where} has another module than this revision pins: {found} is there, {revision.digest} is wanted",
            )
        await self._cache.keep_module(data)
        return data

    async def keep(self, data: bytes) -> None:
        """A module that will be wanted again."""
        await self._cache.keep_module(data)

    async def _in_config_map(self, revision: Revision) -> bytes:
        data = await self._sources.module(revision)
        if len(data) > CONFIG_MAP_MOST_BYTES:
            raise PullFailedError(
                Waiting.MODULE_PULL_FAILED,
                f"module: {len(data)} bytes are given, {CONFIG_MAP_MOST_BYTES} are allowed",
            )
        return data
