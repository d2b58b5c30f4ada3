"""A revision's module and environment, from ConfigMaps. Every failure says which object, which key, and what to do."""

import hashlib
from collections.abc import Mapping
from typing import Final

from wasmpool_agent.supervisor.ports import AbsentError, ConfigMap, ConfigMaps, ForbiddenError, PortError
from wasmpool_api.meta import agent_name
from wasmpool_api.reasons import Refusal, Waiting
from wasmpool_api.revisions import Revision
from wasmpool_api.wasm_workload import EnvVar, KeyRef

READER_ROLE: Final = "wasmpool-module-reader"
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
    if revision.module.image is not None:
        problems.append("module.image: this agent can't pull images yet; allowed is module.configMap")
    elif revision.module.config_map is None:
        problems.append("module: no source is given; allowed is module.configMap")
    if revision.run.http is not None:
        problems.append("run.http: this agent can't serve requests yet; allowed is run.command")
    elif revision.run.command is None:
        problems.append("run: nothing is given; allowed is run.command")
    else:
        problems += [
            f"run.command.env {variable.name}: this agent can't read Secrets yet; "
            "allowed are value and valueFrom.configMapKeyRef"
            for variable in revision.run.command.env
            if variable.value_from is not None and variable.value_from.secret_key_ref is not None
        ]
    if problems:
        raise PullFailedError(Refusal.UNSUPPORTED_FEATURE, "; ".join(problems))


class Sources:
    """`pool_namespace` and `pool` name the service account that a namespace's owner must give consent to."""

    def __init__(self, config_maps: ConfigMaps, pool_namespace: str, pool: str) -> None:
        self._config_maps = config_maps
        self._pool_namespace = pool_namespace
        self._pool = pool

    async def module(self, revision: Revision) -> bytes:
        """The module as it is now; not compared with the revision's digest. Raises PullFailedError."""
        source = revision.module.config_map
        if source is None:
            raise PullFailedError(Refusal.UNSUPPORTED_FEATURE, "module: allowed is module.configMap")
        found = await self._get(revision.workload_namespace, source.name, "module.configMap")
        if source.key not in found.entries:
            raise PullFailedError(Waiting.MODULE_PULL_FAILED, f"module.configMap: {_no_key(found, source.key)}")
        return found.entries[source.key]

    async def environment(self, revision: Revision) -> tuple[tuple[str, str], ...]:
        """Names and values, in the revision's order; of a name given twice the last value. Raises PullFailedError."""
        command = revision.run.command
        values: dict[str, str] = {}
        cached: dict[str, ConfigMap] = {}
        for variable in command.env if command is not None else ():
            value = await self._value(revision.workload_namespace, variable, cached)
            if value is not None:
                values[variable.name] = value
        return tuple(values.items())

    async def _value(self, namespace: str, variable: EnvVar, cached: dict[str, ConfigMap]) -> str | None:
        reference = variable.value_from.config_map_key_ref if variable.value_from is not None else None
        if reference is None:
            return variable.value or ""
        field = f"run.command.env {variable.name}"
        try:
            if reference.name not in cached:
                cached[reference.name] = await self._get(namespace, reference.name, field)
            return _text(cached[reference.name], reference, field)
        except PullFailedError as error:
            if reference.optional and isinstance(error.__cause__, AbsentError | KeyError):
                return None
            raise

    async def _get(self, namespace: str, name: str, field: str) -> ConfigMap:
        try:
            return await self._config_maps.config_map(namespace, name)
        except AbsentError as error:
            raise PullFailedError(
                Waiting.MODULE_PULL_FAILED, f"{field}: there is no ConfigMap {namespace}/{name}"
            ) from error
        except ForbiddenError as error:
            raise PullFailedError(
                Waiting.MODULE_PULL_FAILED,
                f"{field}: ConfigMap {namespace}/{name} may not be read by the agents of pool {self._pool}; "
                f"to allow it, make a RoleBinding in namespace {namespace} of ClusterRole {READER_ROLE} "
                f"to ServiceAccount {self._pool_namespace}/{agent_name(self._pool)}",
            ) from error
        except PortError as error:
            raise PullFailedError(
                Waiting.MODULE_PULL_FAILED, f"{field}: ConfigMap {namespace}/{name}: {error}"
            ) from error


def _text(found: ConfigMap, reference: KeyRef, field: str) -> str:
    try:
        data = found.entries[reference.key]
    except KeyError as error:
        raise PullFailedError(Waiting.MODULE_PULL_FAILED, f"{field}: {_no_key(found, reference.key)}") from error
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise PullFailedError(
            Waiting.MODULE_PULL_FAILED,
            f"{field}: key {reference.key} of ConfigMap {found.namespace}/{found.name} is not UTF-8",
        ) from error
    if "\0" in text:
        raise PullFailedError(
            Waiting.MODULE_PULL_FAILED,
            f"{field}: key {reference.key} of ConfigMap {found.namespace}/{found.name} has a zero byte",
        )
    return text


def _no_key(found: ConfigMap, key: str) -> str:
    where = f" ({found.origin})" if found.origin else ""
    return f"ConfigMap {found.namespace}/{found.name}{where} has no key {key}; {_keys(found.entries)}"


def _keys(entries: Mapping[str, bytes]) -> str:
    if not entries:
        return "it is empty"
    names = sorted(entries)
    more = f" and {len(names) - KEYS_SHOWN} more" if len(names) > KEYS_SHOWN else ""
    return f"it has {', '.join(names[:KEYS_SHOWN])}{more}"
