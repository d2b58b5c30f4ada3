"""Modules out of registries, through the cache, with the credentials of whoever asks.

A tag is resolved once for each version of a workload; every node runs the artifact with the digest that it meant then.
A module that is in the cache already opens only to a credential that has pulled its image here, or that the registry
lets pull it now: what one tenant may read is no reason to give it to the next.
"""

import asyncio
import time
from typing import Final
from weakref import WeakValueDictionary

from wasmpool_agent.metrics import Metrics
from wasmpool_agent.modules.cache import Cache
from wasmpool_agent.modules.pulled import Pulled
from wasmpool_agent.modules.registries import PoolCredentials
from wasmpool_agent.modules.sources import PullFailedError, Sources, digest_of
from wasmpool_agent.oci.client import RegistryClient, Resolved
from wasmpool_agent.oci.credentials import ANONYMOUS, Credentials
from wasmpool_agent.oci.errors import ArtifactInvalidError, CredentialsInvalidError, PullError, ReferenceInvalidError
from wasmpool_agent.oci.manifest import Kind
from wasmpool_agent.oci.reference import Reference, parse
from wasmpool_api.reasons import Refusal, Waiting
from wasmpool_api.revisions import Revision
from wasmpool_api.wasm_workload import PullPolicy

IMAGE_MOST_BYTES: Final = 256 * 1024**2
"""Of a module, wherever it comes from: more is compiled by no agent within its limits."""
DOWNLOADS: Final = 4
"""At a time; others wait for their turn."""
_ANY: Final = ""
"""In place of a fingerprint: what is in an image, whoever pulled it."""


class Images:
    """Every method raises PullFailedError. `client` is open for as long as this is used."""

    def __init__(
        self,
        client: RegistryClient,
        sources: Sources,
        pool_credentials: PoolCredentials,
        cache: Cache,
        pulled: Pulled,
        metrics: Metrics,
    ) -> None:
        self._client = client
        self._sources = sources
        self._pool_credentials = pool_credentials
        self._cache = cache
        self._pulled = pulled
        self._metrics = metrics
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._downloads = asyncio.Semaphore(DOWNLOADS)

    async def newest(self, revision: Revision) -> tuple[str, bytes]:
        """What the tag means now: the image by its own digest, and its module."""
        reference = _parsed(revision.module.image or "", "module.image")
        credentials = await self._credentials(revision)
        return await self._pull(reference, credentials)

    async def pinned(self, revision: Revision) -> bytes:
        """The module with the revision's digest, out of the image that the revision pins."""
        reference = _parsed(revision.image, f"revision {revision.name}: image")
        credentials = await self._credentials(revision)
        if revision.module.pull_policy is PullPolicy.IF_NOT_PRESENT:
            kept = await self._kept(reference, credentials, revision.digest)
            if kept is not None:
                return kept
        _, data = await self._pull(reference, credentials)
        found = await asyncio.to_thread(digest_of, data)
        if found != revision.digest:
            raise PullFailedError(
                Refusal.MODULE_INVALID,
                f"module.image {reference}: its module is {found}, this revision pins {revision.digest}",
            )
        return data

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

    async def _kept(self, reference: Reference, credentials: Credentials, digest: str) -> bytes | None:
        """From the cache, if one of these credentials has pulled this very image on this node."""
        candidates = (*credentials.for_repository(reference.registry, reference.repository), ANONYMOUS)
        known = await asyncio.to_thread(
            lambda: any(self._pulled.module(str(reference), it.fingerprint) == digest for it in candidates)
        )
        return await self._cache.module(digest) if known else None

    async def _pull(self, reference: Reference, credentials: Credentials) -> tuple[str, bytes]:
        began = time.monotonic()
        try:
            resolved = await self._client.resolve(reference, credentials)
            image = f"{reference.name}@{resolved.reference.digest}"
            data = await self._obtain(resolved, image, credentials)
        except PullError as error:
            self._metrics.pulled(type(error).__name__.removesuffix("Error"), 0)
            reason = Refusal.MODULE_INVALID if isinstance(error, ArtifactInvalidError) else Waiting.MODULE_PULL_FAILED
            raise PullFailedError(reason, f"module.image: {error}") from error
        except OSError as error:
            self._metrics.pulled("CacheNotWritable", 0)
            raise PullFailedError(
                Waiting.MODULE_PULL_FAILED,
                f"module.image {reference}: the agent's cache can't be written: {error.strerror or error}",
            ) from error
        self._metrics.pulled("ok", time.monotonic() - began)
        return image, data

    async def _obtain(self, resolved: Resolved, image: str, credentials: Credentials) -> bytes:
        """From the cache where it is there: the registry has just shown its manifest to these credentials."""
        (first, *_) = resolved.content.layers
        layer = first.digest if resolved.kind is Kind.ARTIFACT else image
        async with self._locks.setdefault(layer, asyncio.Lock()):
            digest = layer if resolved.kind is Kind.ARTIFACT else self._pulled.module(image, _ANY)
            data = await self._cache.module(digest) if digest is not None else None
            if data is None:
                async with self._downloads:
                    data = await self._client.fetch(
                        resolved, credentials, self._cache.downloads, IMAGE_MOST_BYTES, self._metrics.received
                    )
                await self._cache.keep_module(data)
            await asyncio.to_thread(self._remember, image, resolved.fingerprint, data)
            return data

    def _remember(self, image: str, fingerprint: str, data: bytes) -> None:
        digest = digest_of(data)
        for each in (_ANY, fingerprint):
            self._pulled.learn(image, each, digest)


def _parsed(text: str, field: str) -> Reference:
    try:
        return parse(text)
    except ReferenceInvalidError as error:
        raise PullFailedError(Refusal.MODULE_INVALID, f"{field}: {error}") from error
