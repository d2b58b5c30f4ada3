"""What a revision names in its namespace: ConfigMaps, Secrets. A failure says which object, which key, what to do."""

import hashlib
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from wasmpool_agent.supervisor.ports import AbsentError, ForbiddenError, Objects, PortError
from wasmpool_agent.wasi.files import PathNotDirectoryError, trees
from wasmpool_api.meta import agent_name
from wasmpool_api.reasons import Refusal, Waiting
from wasmpool_api.revisions import Revision
from wasmpool_api.wasm_workload import EnvVar, EnvVarSource, KeyRef

MODULE_READER: Final = "wasmpool-module-reader"
SECRET_READER: Final = "wasmpool-secret-reader"  # noqa: S105 - a role
PULL_SECRET_KEY: Final = ".dockerconfigjson"  # noqa: S105 - where it is
KEYS_SHOWN: Final = 10


class PullFailedError(Exception):
    """There is no module, or no environment, now. `reason` is temporary or permanent; the message names what."""

    def __init__(self, reason: Waiting | Refusal, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message

    @property
    def permanent(self) -> bool:
        """Whether somebody must change the workload."""
        return isinstance(self.reason, Refusal)


def digest_of(data: bytes) -> str:
    """As in status.module.digest."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def refuse_unsupported(revision: Revision) -> None:
    """Raises PullFailedError for what the API has and this agent has not. Nothing is pretended."""
    problems: list[str] = []
    if (revision.module.image is None) == (revision.module.config_map is None):
        problems.append("module: allowed is exactly one of image and configMap")
    if (revision.run.http is None) == (revision.run.command is None):
        problems.append("run: allowed is exactly one of command and http")
    if problems:
        raise PullFailedError(Refusal.UNSUPPORTED_FEATURE, "; ".join(problems))


@dataclass(frozen=True, slots=True)
class _Object:
    """A ConfigMap or Secret. `title`: as messages name it, with its kind."""

    title: str
    entries: Mapping[str, bytes]


class Sources:
    """`pool_namespace` and `pool` name the service account that a namespace's owner must give consent to."""

    def __init__(self, objects: Objects, pool_namespace: str, pool: str) -> None:
        self._objects = objects
        self._pool_namespace = pool_namespace
        self._pool = pool

    async def module(self, revision: Revision) -> bytes:
        """The module as its ConfigMap has it now; not compared with the revision's digest. Raises PullFailedError."""
        source = revision.module.config_map
        if source is None:
            raise PullFailedError(Refusal.UNSUPPORTED_FEATURE, "module: allowed is module.configMap")
        found = await self._config_map(revision.workload_namespace, source.name, "module.configMap")
        if source.key not in found.entries:
            raise PullFailedError(Waiting.MODULE_PULL_FAILED, f"module.configMap: {_no_key(found, source.key)}")
        return found.entries[source.key]

    async def pull_secrets(self, revision: Revision) -> Mapping[str, bytes]:
        """The workload's own, by name: a dockerconfigjson each. Raises PullFailedError."""
        documents: dict[str, bytes] = {}
        for reference in revision.module.image_pull_secrets:
            field = f"module.imagePullSecrets {reference.name}"
            found = await self._secret(revision.workload_namespace, reference.name, field)
            if PULL_SECRET_KEY not in found.entries:
                raise PullFailedError(Waiting.MODULE_PULL_FAILED, f"{field}: {_no_key(found, PULL_SECRET_KEY)}")
            documents[f"{revision.workload_namespace}/{reference.name}"] = found.entries[PULL_SECRET_KEY]
        return documents

    async def environment(self, revision: Revision) -> tuple[tuple[str, str], ...]:
        """Names and values, in the revision's order; of a name given twice the last value. Raises PullFailedError."""
        run = revision.run.command or revision.run.http
        kind = "command" if revision.run.command is not None else "http"
        values: dict[str, str] = {}
        cached: dict[tuple[bool, str], _Object] = {}
        for variable in run.env if run is not None else ():
            field = f"run.{kind}.env {variable.name}"
            value = await self._value(revision.workload_namespace, variable, field, cached)
            if value is not None:
                values[variable.name] = value
        return tuple(values.items())

    async def files(self, revision: Revision) -> dict[str, dict[str, bytes]]:
        """By where they are mounted, then by path. Raises PullFailedError."""
        run = revision.run.command or revision.run.http
        kind = "command" if revision.run.command is not None else "http"
        mounts: dict[str, dict[str, bytes]] = {}
        for each in run.files if run is not None else ():
            source, get = (each.secret, self._secret) if each.secret else (each.config_map, self._config_map)
            field = f"run.{kind}.files {each.mount_path}"
            if source is None:
                raise PullFailedError(Refusal.UNSUPPORTED_FEATURE, f"{field}: allowed is one of configMap and secret")
            found = await get(revision.workload_namespace, source.name, field)
            items = {it.path: it.key for it in source.items} or {key: key for key in found.entries}
            for key in items.values():
                if key not in found.entries:
                    raise PullFailedError(Waiting.MODULE_PULL_FAILED, f"{field}: {_no_key(found, key)}")
            mounts[each.mount_path] = {path: found.entries[key] for path, key in items.items()}
            try:
                trees({each.mount_path: mounts[each.mount_path]})
            except PathNotDirectoryError as error:
                raise PullFailedError(
                    Refusal.UNSUPPORTED_FEATURE, f"{field}: {error} is below another item's path, which is a file"
                ) from error
        return mounts

    async def _value(
        self, namespace: str, variable: EnvVar, field: str, cached: dict[tuple[bool, str], _Object]
    ) -> str | None:
        source = variable.value_from or EnvVarSource()
        reference = source.secret_key_ref or source.config_map_key_ref
        if reference is None:
            return variable.value or ""
        secret = source.secret_key_ref is not None
        try:
            key = (secret, reference.name)
            if key not in cached:
                get = self._secret if secret else self._config_map
                cached[key] = await get(namespace, reference.name, field)
            return _text(cached[key], reference, field)
        except PullFailedError as error:
            if reference.optional and isinstance(error.__cause__, AbsentError | KeyError):
                return None
            raise

    async def _config_map(self, namespace: str, name: str, field: str) -> _Object:
        title = f"ConfigMap {namespace}/{name}"
        with self._told(title, field, namespace, MODULE_READER):
            found = await self._objects.config_map(namespace, name)
        return _Object(f"{title} ({found.origin})" if found.origin else title, found.entries)

    async def _secret(self, namespace: str, name: str, field: str) -> _Object:
        title = f"Secret {namespace}/{name}"
        with self._told(title, field, namespace, SECRET_READER):
            return _Object(title, await self._objects.secret(namespace, name))

    @contextmanager
    def _told(self, title: str, field: str, namespace: str, role: str) -> Generator[None]:
        try:
            yield
        except AbsentError as error:
            raise PullFailedError(Waiting.MODULE_PULL_FAILED, f"{field}: there is no {title}") from error
        except ForbiddenError as error:
            raise PullFailedError(
                Waiting.MODULE_PULL_FAILED,
                f"{field}: {title} may not be read by the agents of pool {self._pool}; "
                f"to allow it, make a RoleBinding in namespace {namespace} of ClusterRole {role} "
                f"to ServiceAccount {self._pool_namespace}/{agent_name(self._pool)}",
            ) from error
        except PortError as error:
            raise PullFailedError(Waiting.MODULE_PULL_FAILED, f"{field}: {title}: {error}") from error


def _text(found: _Object, reference: KeyRef, field: str) -> str:
    try:
        data = found.entries[reference.key]
    except KeyError as error:
        raise PullFailedError(Waiting.MODULE_PULL_FAILED, f"{field}: {_no_key(found, reference.key)}") from error
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise PullFailedError(
            Waiting.MODULE_PULL_FAILED,
            f"{field}: key {reference.key} of {found.title} is not UTF-8",
        ) from error
    if "\0" in text:
        raise PullFailedError(
            Waiting.MODULE_PULL_FAILED,
            f"{field}: key {reference.key} of {found.title} has a zero byte",
        )
    return text


def _no_key(found: _Object, key: str) -> str:
    return f"{found.title} has no key {key}; {_keys(found.entries)}"


def _keys(entries: Mapping[str, bytes]) -> str:
    if not entries:
        return "it is empty"
    names = sorted(entries)
    more = f" and {len(names) - KEYS_SHOWN} more" if len(names) > KEYS_SHOWN else ""
    return f"it has {', '.join(names[:KEYS_SHOWN])}{more}"
