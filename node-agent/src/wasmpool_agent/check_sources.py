"""What `wasmpool-agent check` is given: files, and modules in registries."""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from wasmpool_agent.errors import UserError
from wasmpool_agent.modules.images import IMAGE_MOST_BYTES
from wasmpool_agent.modules.registries import docker_config, registry_client
from wasmpool_agent.oci.client import RegistryClient
from wasmpool_agent.oci.credentials import Credentials
from wasmpool_agent.oci.errors import CredentialsInvalidError, PullError, ReferenceInvalidError
from wasmpool_agent.oci.reference import Reference, parse
from wasmpool_api.instance_pool import InstancePool

SCHEME: Final = "oci://"


@dataclass(frozen=True, slots=True)
class Found:
    """`name`: as given. `image`: of a reference, the artifact by its own digest."""

    name: str
    data: bytes
    image: str = ""


async def find(names: Sequence[str], pool: InstancePool) -> list[Found]:
    """In the order given; the pool says how registries are reached. Raises UserError for the first that fails."""
    async with registry_client(pool) as client:
        return [await _pulled(name, client) if name.startswith(SCHEME) else _read(name) for name in names]


def _read(name: str) -> Found:
    try:
        return Found(name, Path(name).read_bytes())
    except OSError as error:
        raise UserError(f"{name}: {error.strerror}") from error


async def _pulled(name: str, client: RegistryClient) -> Found:
    try:
        return await _pull(name, parse(name.removeprefix(SCHEME)), Credentials.parse(docker_config()), client)
    except (ReferenceInvalidError, CredentialsInvalidError, PullError, OSError) as error:
        raise UserError(f"{name}: {error}") from error


async def _pull(name: str, reference: Reference, credentials: Credentials, client: RegistryClient) -> Found:
    resolved = await client.resolve(reference, credentials)
    with tempfile.TemporaryDirectory(prefix="wasmpool-") as directory:
        data = await client.fetch(resolved, credentials, Path(directory), IMAGE_MOST_BYTES)
    return Found(name, data, f"{reference.name}@{resolved.reference.digest}")
