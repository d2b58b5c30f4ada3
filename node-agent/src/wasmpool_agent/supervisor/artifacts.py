"""Compiled code: from the cache, or from a compiler; each once, in a sealed memfd that workers map."""

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from weakref import WeakValueDictionary

from wasmpool_agent.bundles import BundleError, unpack
from wasmpool_agent.compiler import (
    DEFAULT_MEMORY_LIMIT_BYTES,
    Compiled,
    CompileFailed,
    Sealed,
    compile_file,
    engine_settings,
)
from wasmpool_agent.metrics import Metrics
from wasmpool_agent.modules.cache import Cache
from wasmpool_agent.modules.store import compiled_key, cpu_features
from wasmpool_agent.protocol import ArtifactKind, Part
from wasmpool_agent.supervisor.promises import ClaimKey
from wasmpool_agent.threads import in_thread
from wasmpool_api.instance_pool import Backing

COMPILERS: Final = 1
"""At a time: each may use every CPU, and takes up to PodMemory.compile_bytes of the pod's memory."""

log = logging.getLogger(__name__)

OpenModule = Callable[[], Awaitable[int]]
"""The module as a descriptor that is then the caller's: called only where it is compiled now, not while it waits."""


@dataclass(slots=True)
class Artifact:
    """Compiled code in sealed memfds. `users`: claims that may still start it; without any it is closed."""

    key: str
    digest: str
    kind: ArtifactKind
    sealed: tuple[Sealed, ...]
    users: set[ClaimKey] = field(default_factory=set[ClaimKey])

    @property
    def parts(self) -> tuple[Part, ...]:
        """As workers are told of them."""
        return tuple(Part(size=it.size, sha256=it.sha256) for it in self.sealed)

    @property
    def fds(self) -> tuple[int, ...]:
        """One for each part."""
        return tuple(it.fd for it in self.sealed)

    def close(self) -> None:
        """Idempotent."""
        sealed, self.sealed = self.sealed, ()
        for it in sealed:
            os.close(it.fd)


class Artifacts:
    """Owns the descriptors. However many workloads come at once, `COMPILERS` modules are compiled at a time.

    `compile_bytes`: memory for one compilation.
    """

    def __init__(
        self, pool_file: Path, cache: Cache, metrics: Metrics, compile_bytes: int = DEFAULT_MEMORY_LIMIT_BYTES
    ) -> None:
        self._pool_file = pool_file
        self._cache = cache
        self._metrics = metrics
        self._compile_bytes = compile_bytes
        self._artifacts: dict[str, Artifact] = {}
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._compilers = asyncio.Semaphore(COMPILERS)
        self._queued = 0
        self._settings: str | None = None
        self._machine = cpu_features()

    def get(self, key: str) -> Artifact | None:
        """Known compiled code."""
        return self._artifacts.get(key)

    def release(self, claim: ClaimKey) -> list[str]:
        """The claim starts nothing any more. Gives the keys of artifacts that nobody uses now; they are closed."""
        unused: list[str] = []
        for key, artifact in list(self._artifacts.items()):
            artifact.users.discard(claim)
            if not artifact.users:
                artifact.close()
                del self._artifacts[key]
                self._cache.unpin(key)
                unused.append(key)
        return unused

    def discard(self, key: str) -> None:
        """Compiled code that a worker could not load: it is made anew."""
        self._cache.drop_compiled(key)
        self._cache.unpin(key)
        artifact = self._artifacts.pop(key, None)
        if artifact is not None:
            artifact.close()

    def close(self) -> None:
        """Idempotent."""
        for artifact in self._artifacts.values():
            artifact.close()
        self._artifacts.clear()

    async def obtain(
        self,
        claim: ClaimKey,
        digest: str,
        open_module: OpenModule,
        backing: Backing | None,
        on_wait: Callable[[int], None],
    ) -> Artifact:
        """Raises CompileFailed, OSError, and what `open_module` raises.

        `on_wait` is told how many modules are to be compiled before this one.
        """
        if self._settings is None:
            self._settings = await engine_settings(self._pool_file, backing=backing or "")
        key = compiled_key(digest, self._settings, self._machine)
        async with self._locks.setdefault(key, asyncio.Lock()):
            known = self._artifacts.get(key)
            if known is None:
                known = await self._load(key, digest)
                if known is None:
                    known = await self._compile(key, digest, open_module, backing, on_wait)
                self._artifacts[key] = known
                self._cache.pin(key, digest)
            # NB: before the lock is given up, for an artifact without users may be closed.
            known.users.add(claim)
            return known

    async def _load(self, key: str, digest: str) -> Artifact | None:
        sealed = await self._cache.compiled(key)
        if sealed is None:
            return None
        try:
            return await _unpacked(key, digest, sealed)
        except BundleError as error:
            log.warning("compiled code in the cache can't be used, and is made anew: %s", error)
            self._cache.drop_compiled(key)
            return None

    async def _compile(
        self, key: str, digest: str, open_module: OpenModule, backing: Backing | None, on_wait: Callable[[int], None]
    ) -> Artifact:
        if self._compilers.locked():
            on_wait(self._queued)
        self._queued += 1
        self._metrics.compiles_queued(self._queued)
        try:
            async with self._compilers:
                on_wait(0)
                compiled = await self._compile_now(await open_module(), backing)
        finally:
            self._queued -= 1
            self._metrics.compiles_queued(self._queued)
        self._metrics.compiled(compiled.seconds)
        try:
            await self._cache.keep_compiled(key, compiled.fd, compiled.sha256)
        except BaseException:
            compiled.close()
            raise
        return await _unpacked(key, digest, Sealed(compiled.fd, compiled.size, compiled.sha256))

    async def _compile_now(self, in_fd: int, backing: Backing | None) -> Compiled:
        try:
            return await compile_file(
                in_fd, self._pool_file, backing=backing or "", memory_limit_bytes=self._compile_bytes
            )
        except CompileFailed as error:
            self._metrics.compile_failed(error.reason)
            raise
        finally:
            os.close(in_fd)


async def _unpacked(key: str, digest: str, sealed: Sealed) -> Artifact:
    def close_all(found: tuple[ArtifactKind, tuple[Sealed, ...]]) -> None:
        for each in found[1]:
            os.close(each.fd)

    kind, parts = await in_thread(lambda: unpack(sealed), close_all)
    return Artifact(key, digest, kind, parts)
