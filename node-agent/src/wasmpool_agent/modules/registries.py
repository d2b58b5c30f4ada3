"""How registries are reached, and with which credentials, as the pool and the place where the agent runs say it."""

import base64
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from wasmpool_agent.errors import UserError
from wasmpool_agent.oci.client import RegistryClient
from wasmpool_agent.oci.errors import SettingsInvalidError
from wasmpool_agent.oci.settings import RegistrySettings
from wasmpool_api.instance_pool import InstancePool
from wasmpool_api.registries import registries_problem

PULL_SECRETS: Final = Path("/etc/wasmpool-pull-secrets")
"""Where the operator projects the pool's pull secrets: `<name>/.dockerconfigjson` each."""

PoolCredentials = Callable[[], Mapping[str, bytes]]
"""Documents in dockerconfigjson by a title for messages, as they are now. Raises OSError."""


def registry_client(pool: InstancePool) -> RegistryClient:
    """As the pool's registries say. Raises UserError for what can't be meant."""
    problem = registries_problem(pool.spec)
    if problem is not None:
        raise UserError(problem)
    try:
        return RegistryClient(
            RegistrySettings(
                it.host, it.plain_http, base64.b64decode(it.ca_bundle) if it.ca_bundle else None, it.mirrors
            )
            for it in pool.spec.registries
        )
    except SettingsInvalidError as error:
        raise UserError(f"spec.{error}") from error


def mounted_secrets(directory: Path, namespace: str) -> PoolCredentials:
    """Those that are projected into the pod; a Secret that does not exist leaves nothing there."""

    def read() -> Mapping[str, bytes]:
        return {
            f"Secret {namespace}/{path.parent.name}": path.read_bytes()
            for path in sorted(directory.glob("*/.dockerconfigjson"))
        }

    return read


def docker_config() -> Mapping[str, bytes]:
    """What `docker login` and its like have left for this user; nothing where they have not."""
    home = os.environ.get("DOCKER_CONFIG") or os.path.expanduser("~/.docker")
    path = Path(home) / "config.json"
    try:
        return {str(path): path.read_bytes()}
    except FileNotFoundError:
        return {}
