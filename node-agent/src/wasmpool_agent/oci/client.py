"""RegistryClient: from a reference to a module. What it is told by anybody is checked against a digest."""

import asyncio
import functools
import hashlib
import random
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import TracebackType
from typing import Final, TypeVar

from wasmpool_agent.oci.asking import Asking, Means
from wasmpool_agent.oci.auth import Tokens
from wasmpool_agent.oci.credentials import NO_CREDENTIALS, Credential, Credentials
from wasmpool_agent.oci.errors import ArtifactInvalidError, DigestMismatchError, TooLargeError
from wasmpool_agent.oci.layers import WASM_MAGIC, Layer, find_wasm
from wasmpool_agent.oci.manifest import ACCEPTED, PLATFORMS, Content, Kind, read
from wasmpool_agent.oci.manifest import MOST_BYTES as MOST_MANIFEST_BYTES
from wasmpool_agent.oci.parts import Origin, Part, unpacking
from wasmpool_agent.oci.reference import Reference, is_digest
from wasmpool_agent.oci.settings import Endpoint, Limits, Registries, RegistrySettings
from wasmpool_agent.oci.transfer import Pace, Transfer
from wasmpool_agent.oci.transport import Request, Transport
from wasmpool_agent.oci.turns import Turns

MOST_INDEXES: Final = 2
RESOLVES: Final = 16
RESOLVES_OF_ONE: Final = 4
"""At a time, and of one tenant while others wait: each may hold a manifest in memory."""
_ACCEPT: Final = {"Accept": ", ".join(ACCEPTED)}
_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True)
class Resolved:
    """What a reference means now. `reference`: with the digest of what it names, the index if that is one.

    `content`: what `fetch` fetches. `fingerprint`: of the credential that worked.
    """

    reference: Reference
    content: Content
    fingerprint: str

    @property
    def kind(self) -> Kind:
        """Artifact or image."""
        return self.content.kind

    @property
    def size_bytes(self) -> int:
        """Of the layers that are needed, as the manifest says."""
        return self.content.size_bytes


@dataclass(frozen=True, slots=True)
class _Manifest:
    data: bytes
    media_type: str
    digest: str
    fingerprint: str


class RegistryClient:
    """An async context manager, one for the agent. Its methods raise PullError, and OSError where the disk does."""

    def __init__(
        self,
        settings: Iterable[RegistrySettings] = (),
        *,
        trust_env: bool = True,
        environment: Mapping[str, str] | None = None,
        limits: Limits | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        jitter: Callable[[], float] | None = None,
    ) -> None:
        """`trust_env`: whether HTTPS_PROXY and NO_PROXY hold, of `environment` (None: of this process).

        Raises SettingsInvalidError.
        """
        self._limits = limits or Limits()
        self._resolves = Turns(RESOLVES, RESOLVES_OF_ONE)
        registries = Registries(settings)
        self._transport = Transport(registries, self._limits, _user_agent(), environment if trust_env else {})
        tokens = Tokens(self._transport, lambda: asyncio.get_running_loop().time())
        jitter = jitter or random.SystemRandom().random
        self._means = Means(registries, self._transport, tokens, self._limits, sleep, jitter)

    async def __aenter__(self) -> "RegistryClient":
        await self._transport.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._transport.__aexit__(kind, error, traceback)

    async def resolve(
        self,
        reference: Reference,
        credentials: Credentials = NO_CREDENTIALS,
        *,
        seconds: float | None = None,
        platforms: tuple[str, ...] = PLATFORMS,
        scope: str = "",
    ) -> Resolved:
        """Pins the reference and finds the module's layers. `platforms`: of an index, in the order of preference.

        `scope`: for whom, as the caller tells tenants apart: each has its turn.
        """
        asking = Asking(self._means, reference, credentials)
        async with self._resolves.turn(scope):
            return await asking.within(
                seconds or self._limits.resolve_seconds, "resolving", _resolve(asking, reference, platforms)
            )

    async def authorize(
        self, reference: Reference, credentials: Credentials = NO_CREDENTIALS, *, seconds: float | None = None
    ) -> str:
        """The fingerprint of the credential that may pull it, as the registry says now; "anonymous" if it wanted none.

        `reference` has a digest: a right to pull what a tag names today says nothing of tomorrow.
        """
        if reference.digest is None:
            raise ValueError(f"{reference} has no digest")
        asking = Asking(self._means, reference, credentials)
        return await asking.within(
            seconds or self._limits.resolve_seconds, "asking for", asking.anywhere(_right(asking, reference))
        )

    async def fetch(
        self,
        resolved: Resolved,
        credentials: Credentials,
        directory: Path,
        most_bytes: int,
        on_bytes: Callable[[int], None] = lambda _: None,
        *,
        seconds: float | None = None,
        before_load: Callable[[int], Awaitable[None]] | None = None,
        scope: str = "",
    ) -> bytes:
        """The module. `directory`: for what is not whole yet; nothing of it stays there after success.

        `on_bytes`: called with the number of bytes of each chunk that came over the network. `before_load`: awaited
        with the most that the module can have, once all is on disk and before any of it is in memory. `scope`: for
        whom, as the caller tells tenants apart: what was loaded for one is never gone on from for another.
        """
        if resolved.size_bytes > most_bytes:
            raise TooLargeError(
                f"{resolved.reference} has {resolved.size_bytes} bytes to load, allowed are {most_bytes}"
            )
        asking = Asking(self._means, resolved.reference, credentials)
        return await asking.within(
            seconds or self._limits.fetch_seconds,
            "fetching",
            self._fetch(asking, resolved, directory, most_bytes, on_bytes, before_load, scope),
        )

    async def _fetch(
        self,
        asking: Asking,
        resolved: Resolved,
        directory: Path,
        most_bytes: int,
        on_bytes: Callable[[int], None],
        before_load: Callable[[int], Awaitable[None]] | None,
        scope: str,
    ) -> bytes:
        pace = Pace(self._limits, asyncio.get_running_loop().time)
        origin = Origin(resolved.reference.registry, resolved.reference.repository, scope)
        async with AsyncExitStack() as held:
            parts: dict[str, Part] = {}
            # NB: always in the same order, so that two processes do not wait for each other's
            for described in sorted(resolved.content.layers, key=lambda it: it.digest):
                if described.digest not in parts:
                    part = await held.enter_async_context(Part.held(directory, described, origin, self._means.sleep))
                    await Transfer(asking, described, part, on_bytes, pace).run()
                    parts[described.digest] = part
            if before_load is not None:
                await before_load(resolved.size_bytes if resolved.kind is Kind.ARTIFACT else most_bytes)
            data = await _module(resolved, parts, most_bytes, self._limits.unpack_seconds)
            for part in parts.values():
                part.remove()
            return data


async def _resolve(asking: Asking, reference: Reference, platforms: tuple[str, ...]) -> Resolved:
    manifest = await asking.anywhere(_getting(asking, reference))
    pinned = reference.with_digest(manifest.digest)
    for _ in range(MOST_INDEXES + 1):
        found = _named(reference, functools.partial(read, manifest.data, manifest.media_type, platforms))
        if isinstance(found, Content):
            return Resolved(pinned, found, manifest.fingerprint)
        manifest = await asking.anywhere(_getting(asking, reference.with_digest(found.digest)))
    raise ArtifactInvalidError(f"{reference}: more than {MOST_INDEXES} indexes lead to each other")


def _getting(asking: Asking, reference: Reference) -> Callable[[Endpoint, Credential], Awaitable[_Manifest]]:
    async def get(endpoint: Endpoint, credential: Credential) -> _Manifest:
        what = f"GET manifest {reference.asked} of {endpoint.name}"
        request = Request("GET", endpoint.url("manifests", reference.asked), what, _ACCEPT)
        async with asking.asked(endpoint, credential, request) as (answer, fingerprint):
            if answer.status != 200:
                raise await answer.refusal()
            data = await answer.read(MOST_MANIFEST_BYTES)
            media_type = answer.headers.get("Content-Type", "")
            said = answer.headers.get("Docker-Content-Digest", "")
        wanted = [digest for digest in (reference.digest, said) if digest and is_digest(digest)]
        for digest in wanted:
            got = _digest(data, digest.partition(":")[0])
            if got != digest:
                raise DigestMismatchError(f"{what}: the {len(data)} bytes that came are {got}, wanted is {digest}")
        return _Manifest(data, media_type, wanted[0] if wanted else _digest(data, "sha256"), fingerprint)

    return get


def _right(asking: Asking, reference: Reference) -> Callable[[Endpoint, Credential], Awaitable[str]]:
    async def head(endpoint: Endpoint, credential: Credential) -> str:
        what = f"HEAD manifest {reference.asked} of {endpoint.name}"
        request = Request("HEAD", endpoint.url("manifests", reference.asked), what, _ACCEPT)
        async with asking.asked(endpoint, credential, request) as (answer, fingerprint):
            if answer.status == 200:
                return fingerprint
            if answer.status not in {405, 501}:  # it does not know HEAD
                raise await answer.refusal()
        return (await _getting(asking, reference)(endpoint, credential)).fingerprint

    return head


async def _module(resolved: Resolved, parts: dict[str, Part], most_bytes: int, seconds: float) -> bytes:
    layers = resolved.content.layers
    if resolved.kind is Kind.IMAGE:
        files = [Layer(layer, parts[layer.digest].file) for layer in layers]
        return await unpacking(
            lambda go_on: _named(resolved.reference, lambda: find_wasm(files, most_bytes, go_on)), seconds
        )
    data = await parts[layers[0].digest].content()
    if not data.startswith(WASM_MAGIC):
        start = data[:4].hex(" ") or "nothing"
        raise ArtifactInvalidError(
            f"{resolved.reference}: layer {layers[0]} is no WebAssembly: it starts with {start}, not 00 61 73 6d"
        )
    return data


def _named(reference: Reference, work: Callable[[], _Result]) -> _Result:
    """With the reference in front of what is wrong with it."""
    try:
        return work()
    except (ArtifactInvalidError, TooLargeError) as error:
        raise type(error)(f"{reference}: {error}") from error


def _digest(data: bytes, algorithm: str) -> str:
    return f"{algorithm}:{hashlib.new(algorithm, data).hexdigest()}"


def _user_agent() -> str:
    try:
        return f"wasmpool-agent/{version('wasmpool-node-agent')}"
    except PackageNotFoundError:
        return "wasmpool-agent/unknown"
