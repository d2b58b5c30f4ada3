"""Modules out of registries, into the cache, with the credentials of whoever asks.

A tag is resolved once for each version of a workload; every node runs the artifact with the digest that it meant then.
A module that is in the cache already opens only to a credential that has pulled its image here, or that the registry
lets pull it now, and only if this repository is where it came from: what one tenant may read is no reason to give it to
the next, nor is a digest that the next one's own registry names.
"""

import asyncio
import time
from contextlib import AsyncExitStack
from typing import Final
from weakref import WeakValueDictionary

from wasmpool_agent.metrics import Metrics
from wasmpool_agent.modules.budget import Budget
from wasmpool_agent.modules.cache import Cache
from wasmpool_agent.modules.pulled import Pulled
from wasmpool_agent.modules.registries import PoolCredentials
from wasmpool_agent.modules.sources import PullFailedError, Sources
from wasmpool_agent.oci.client import RegistryClient, Resolved
from wasmpool_agent.oci.credentials import ANONYMOUS, Credentials
from wasmpool_agent.oci.errors import (
    ArtifactInvalidError,
    CredentialsInvalidError,
    PullError,
    ReferenceInvalidError,
    TooLargeError,
)
from wasmpool_agent.oci.manifest import Kind
from wasmpool_agent.oci.reference import Reference, parse
from wasmpool_agent.oci.turns import Turns
from wasmpool_agent.threads import in_thread
from wasmpool_api.reasons import Refusal, Waiting
from wasmpool_api.revisions import Revision
from wasmpool_api.wasm_workload import PullPolicy

IMAGE_MOST_BYTES: Final = 256 * 1024**2
"""Of a module, wherever it comes from: more is compiled by no agent within its limits."""
DOWNLOADS: Final = 4
"""At a time; others wait for their turn."""
DOWNLOADS_OF_ONE: Final = 2
"""Of one namespace: a registry that sends a byte now and then holds up its own."""


class Images:
    """Every method raises PullFailedError. `client` is open for as long as this is used.

    `memory`: what modules may take at a time, once they are more than files. `hint`: what to change where one is larger
    than `most_bytes`.
    """

    def __init__(
        self,
        client: RegistryClient,
        sources: Sources,
        pool_credentials: PoolCredentials,
        cache: Cache,
        pulled: Pulled,
        metrics: Metrics,
        memory: Budget,
        unpacking: Budget | None = None,
        *,
        most_bytes: int = IMAGE_MOST_BYTES,
        hint: str = "",
    ) -> None:
        self._client = client
        self._sources = sources
        self._pool_credentials = pool_credentials
        self._cache = cache
        self._pulled = pulled
        self._metrics = metrics
        self._memory = memory
        self._unpacking = unpacking or memory
        self._most_bytes = min(most_bytes, IMAGE_MOST_BYTES)
        self._hint = hint
        self._locks: WeakValueDictionary[tuple[str, str, str, str], asyncio.Lock] = WeakValueDictionary()
        self._downloads = Turns(DOWNLOADS, DOWNLOADS_OF_ONE)
        metrics.pulls_queued(lambda: self._downloads.waiting)

    async def newest(self, revision: Revision) -> tuple[str, str]:
        """What the tag means now: the image by its own digest, and its module's digest; that is in the cache now."""
        reference = _parsed(revision.module.image or "", "module.image")
        credentials = await self._credentials(revision)
        return await self._pull(reference, credentials, revision.workload_namespace)

    async def pinned(self, revision: Revision) -> None:
        """Brings the module with the revision's digest, out of the image that the revision pins, into the cache."""
        reference = _parsed(revision.image, f"revision {revision.name}: image")
        credentials = await self._credentials(revision)
        if revision.module.pull_policy is PullPolicy.IF_NOT_PRESENT and await self._kept(
            reference, credentials, revision.digest
        ):
            return
        _, found = await self._pull(reference, credentials, revision.workload_namespace)
        if found != revision.digest:
            raise PullFailedError(
                Refusal.MODULE_INVALID,
                f"module.image {reference}: its module is {found}, this revision pins {revision.digest}",
            )

    async def _credentials(self, revision: Revision) -> Credentials:
        """The workload's own first, then the pool's."""
        own = await self._sources.pull_secrets(revision)
        try:
            pools = await asyncio.to_thread(self._pool_credentials)
            return Credentials.parse({**{f"Secret {name}": text for name, text in own.items()}, **pools})
        except CredentialsInvalidError as error:
            raise PullFailedError(Waiting.MODULE_PULL_FAILED, f"module.image: {error}") from error
        except OSError as error:
            raise PullFailedError(
                Waiting.MODULE_PULL_FAILED, f"module.image: the pool's pull secrets can't be read: {error}"
            ) from error

    async def _kept(self, reference: Reference, credentials: Credentials, digest: str) -> bool:
        """Whether it is in the cache, and one of these credentials has pulled this very image on this node."""
        candidates = (*credentials.for_repository(reference.registry, reference.repository), ANONYMOUS)
        known = await in_thread(
            lambda: any(self._pulled.module(str(reference), it.fingerprint) == digest for it in candidates)
        )
        return known and await self._cache.has_module(digest)

    async def _pull(self, reference: Reference, credentials: Credentials, namespace: str) -> tuple[str, str]:
        began = time.monotonic()
        try:
            resolved = await self._client.resolve(reference, credentials, scope=namespace)
            image = f"{reference.name}@{resolved.reference.digest}"
            digest = await self._obtain(resolved, image, credentials, namespace)
        except PullError as error:
            self._metrics.pulled(type(error).__name__.removesuffix("Error"), 0)
            reason = Refusal.MODULE_INVALID if isinstance(error, ArtifactInvalidError) else Waiting.MODULE_PULL_FAILED
            hint = f"; {self._hint}" if isinstance(error, TooLargeError) and self._hint else ""
            raise PullFailedError(reason, f"module.image: {error}{hint}") from error
        except OSError as error:
            self._metrics.pulled("CacheNotWritable", 0)
            raise PullFailedError(
                Waiting.MODULE_PULL_FAILED,
                f"module.image {reference}: the agent's cache can't be written: {error.strerror or error}",
            ) from error
        self._metrics.pulled("ok", time.monotonic() - began)
        return image, digest

    async def _obtain(self, resolved: Resolved, image: str, credentials: Credentials, namespace: str) -> str:
        """From the cache if this repository has given it: it has just shown its manifest to these credentials."""
        (first, *_) = resolved.content.layers
        blob = first.digest if resolved.kind is Kind.ARTIFACT else image
        repository = resolved.reference.name
        # NB: nobody waits for another namespace's download, whose turn may be long in coming.
        async with self._locks.setdefault((repository, blob, resolved.fingerprint, namespace), asyncio.Lock()):
            digest = await in_thread(lambda: self._pulled.supplied(repository, blob))
            if digest is None or not await self._cache.has_module(digest):
                digest = await self._download(resolved, credentials, namespace)
                await in_thread(lambda: self._pulled.learn_supplied(repository, blob, digest))
            await in_thread(lambda: self._pulled.learn(image, resolved.fingerprint, digest))
            return digest

    async def _download(self, resolved: Resolved, credentials: Credentials, namespace: str) -> str:
        # NB: what is unpacked takes long and may take all; what is a module already must not wait for that.
        memory = self._unpacking if resolved.kind is Kind.IMAGE else self._memory
        async with self._downloads.turn(namespace), AsyncExitStack() as held:
            data = await self._client.fetch(
                resolved,
                credentials,
                self._cache.downloads,
                self._most_bytes,
                self._metrics.received,
                scope=namespace,
                before_load=lambda size: held.enter_async_context(memory.of(size, namespace)),
            )
            return await self._cache.keep_module(data)


def _parsed(text: str, field: str) -> Reference:
    try:
        return parse(text)
    except ReferenceInvalidError as error:
        raise PullFailedError(Refusal.MODULE_INVALID, f"{field}: {error}") from error
