"""The client as tests call it: one pull, with short waits."""

import asyncio
import base64
import json
import os
from collections.abc import Awaitable, Callable, Iterable, Mapping
from pathlib import Path
from typing import Final, TypeVar

from wasmpool_agent.oci.client import RegistryClient, Resolved
from wasmpool_agent.oci.credentials import NO_CREDENTIALS, Credentials
from wasmpool_agent.oci.reference import parse
from wasmpool_agent.oci.settings import Limits, RegistrySettings

HEADER: Final = b"\0asm\1\0\0\0"
QUICK: Final = Limits(
    resolve_seconds=20,
    fetch_seconds=30,
    connect_seconds=2,
    stall_seconds=1,
    first_wait_seconds=0.01,
    most_wait_seconds=0.1,
)
MOST: Final = 64 * 1024 * 1024
_Result = TypeVar("_Result")


def module(size: int = 1000) -> bytes:
    """Of random bytes behind the header: nothing that compresses, and no two the same."""
    return HEADER + os.urandom(size - len(HEADER))


def login(source: Mapping[str, tuple[str, str]]) -> Credentials:
    """By registry or registry/path: a name and a password."""
    auths = {key: {"auth": base64.b64encode(":".join(pair).encode()).decode()} for key, pair in source.items()}
    return Credentials.parse({"Secret team/registry": json.dumps({"auths": auths})})


def with_client(
    settings: Iterable[RegistrySettings],
    work: Callable[[RegistryClient], Awaitable[_Result]],
    *,
    environment: Mapping[str, str] | None = None,
    limits: Limits = QUICK,
) -> _Result:
    """In an event loop of its own. Proxies of this machine do not count."""

    async def run() -> _Result:
        async with RegistryClient(settings, environment=environment or {}, limits=limits) as client:
            return await work(client)

    return asyncio.run(run())


def resolve(
    settings: Iterable[RegistrySettings], text: str, credentials: Credentials = NO_CREDENTIALS, **options: object
) -> Resolved:
    """What the text means now."""
    return with_client(settings, lambda client: client.resolve(parse(text), credentials), **options)  # type: ignore[arg-type]


def pull(
    settings: Iterable[RegistrySettings],
    text: str,
    directory: Path,
    credentials: Credentials = NO_CREDENTIALS,
    most_bytes: int = MOST,
) -> bytes:
    """Resolves and fetches."""

    async def work(client: RegistryClient) -> bytes:
        resolved = await client.resolve(parse(text), credentials)
        return await client.fetch(resolved, credentials, directory, most_bytes)

    return with_client(settings, work)
