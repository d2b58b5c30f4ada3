"""The desired state from the API server. The only module of the agent that imports `kubernetes`.

Requests are made on plain dicts by path: the generated classes cost 35 MB of memory and refuse objects that are legal
but partial. The token is read from its file again once a minute, because the kubelet replaces it.
"""

import asyncio
import json
import logging
import os
import re
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final, cast
from urllib.parse import quote, urlencode

import aiohttp
from kubernetes.aio.client.api_client import ApiClient
from kubernetes.aio.client.configuration import Configuration
from kubernetes.aio.config import ConfigException, incluster_config, kube_config

from wasmpool_agent.errors import UserError, one_line
from wasmpool_agent.kube_memory import Remembered
from wasmpool_agent.modules.objects import config_map_of, secret_entries
from wasmpool_agent.supervisor.backoff import API
from wasmpool_agent.supervisor.ports import (
    AbsentError,
    ConfigMap,
    Desired,
    ForbiddenError,
    PortError,
    RefusedError,
    UnavailableError,
)
from wasmpool_api.codec import APPLY_PATCH, FieldError, apply_patch, decode, encode
from wasmpool_api.instance_pool_node import InstancePoolNode, InstancePoolNodeStatus
from wasmpool_api.meta import API_VERSION, GROUP, INSTANCE_POOL_NODE, PLURALS, VERSION
from wasmpool_api.revisions import Revision

FIELD_MANAGER: Final = "wasmpool-agent"
REQUEST_SECONDS: Final = 15.0
WATCH_SECONDS: Final = 300
SILENCE_SECONDS: Final = 120.0
"""A watch that brings nothing for so long, not even a bookmark (one a minute), is taken for dead."""
CACHE_AFTER_SECONDS: Final = 5.0
"""At the start: without an answer for so long, what was assigned before is taken up again."""

Manifest = dict[str, Any]

_TOO_MUCH: Final = ("request is too large", "message larger than max")
_ENTRY: Final = re.compile(r"\bstatus\.workloads\[(\d+)\]")

log = logging.getLogger(__name__)


class _GoneError(Exception):
    """The watch can't go on from where it was: everything is listed anew."""


@asynccontextmanager
async def open_node(namespace: str, name: str, cache: Path) -> AsyncGenerator["KubeNode"]:
    """With $KUBECONFIG, or the pod's service account. Closed on exit. Raises UserError where there is neither."""
    configuration = Configuration()
    kube: Any = kube_config  # neither has types
    in_cluster: Any = incluster_config
    try:
        if os.environ.get("KUBECONFIG"):
            await kube.load_kube_config(client_configuration=configuration, persist_config=False)
        else:
            in_cluster.load_incluster_config(client_configuration=configuration)
    except ConfigException as error:
        raise UserError(f"no API server: {one_line(error)} (and KUBECONFIG is not set)") from error
    async with ApiClient(configuration) as client:
        yield KubeNode(client, namespace, name, cache)


class KubeNode:
    """One InstancePoolNode, and what its assignments name. Implements `DesiredState`."""

    def __init__(self, client: ApiClient, namespace: str, name: str, cache: Path) -> None:
        self._client: Any = client
        self._namespace = namespace
        self._name = name
        self._collection = f"/apis/{GROUP}/{VERSION}/namespaces/{namespace}/{PLURALS[INSTANCE_POOL_NODE]}"
        self._memory = Remembered(cache / "api")
        self._uid = ""
        self._revisions: dict[str, Revision] = {}

    async def watch(self) -> AsyncIterator[Desired]:
        """See `DesiredState`."""
        failures = 0
        reached = False
        resource_version = ""
        began = asyncio.get_running_loop().time()
        remembered = False
        while True:
            try:
                if not resource_version:
                    desired, resource_version = await self._list()
                    failures, reached = 0, True
                    yield desired
                async for event, version in self._events(resource_version):
                    failures, resource_version = 0, version
                    if event is not None:
                        yield event
            except _GoneError:
                resource_version = ""
            except PortError as error:
                failures += 1
                log.warning("watching InstancePoolNode %s: %s", self._name, error)
                if not reached and not remembered and asyncio.get_running_loop().time() - began > CACHE_AFTER_SECONDS:
                    remembered = True
                    desired_before = self._memory.desired()
                    if desired_before is not None:
                        log.warning("going on with what was assigned before, until the API server answers")
                        yield desired_before
                # After a failure the version may be stale or the server another one; a list costs one object.
                resource_version = ""
            await asyncio.sleep(API.seconds(failures))

    async def revision(self, name: str) -> Revision:
        """See `DesiredState`. Revisions never change: each is fetched once, and kept on disk."""
        known = self._revisions.get(name)
        if known is not None:
            return known
        path = f"/apis/apps/v1/namespaces/{self._namespace}/controllerrevisions/{quote(name, safe='')}"
        try:
            data = (await self._request("GET", path)).get("data")
        except UnavailableError:
            data = self._memory.revision(name)
            if data is None:
                raise
        revision = Revision.from_data(data)
        if revision.name != name:
            # NB: the name is the content's hash; what differs from it was written by someone else, or by a version of
            # the operator whose fields this agent does not know.
            raise FieldError("data", f"its content is named {revision.name}")
        self._memory.keep_revision(name, data)
        self._revisions[name] = revision
        return revision

    async def config_map(self, namespace: str, name: str) -> ConfigMap:
        """See `Objects`."""
        path = f"/api/v1/namespaces/{quote(namespace, safe='')}/configmaps/{quote(name, safe='')}"
        return config_map_of(await self._request("GET", path))

    async def secret(self, namespace: str, name: str) -> Mapping[str, bytes]:
        """See `Objects`. Never kept: whoever may not read it any more has it no more."""
        path = f"/api/v1/namespaces/{quote(namespace, safe='')}/secrets/{quote(name, safe='')}"
        return secret_entries(await self._request("GET", path))

    async def publish(self, status: InstancePoolNodeStatus) -> None:
        """See `DesiredState`. Server-side apply of the whole status: what is left out is removed."""
        metadata = {"name": self._name, "namespace": self._namespace}
        if self._uid:  # of another object by this name nothing must be said
            metadata["uid"] = self._uid
        body = {"apiVersion": API_VERSION, "kind": INSTANCE_POOL_NODE, "metadata": metadata, "status": encode(status)}
        await self._request(
            "PATCH",
            f"{self._collection}/{quote(self._name, safe='')}/status",
            body=apply_patch(body),
            content_type=APPLY_PATCH,
            query={"fieldManager": FIELD_MANAGER, "force": "true", "fieldValidation": "Strict"},
        )

    async def _list(self) -> tuple[Desired, str]:
        query = {"fieldSelector": f"metadata.name={self._name}"}
        answer = await self._request("GET", self._collection, query=query)
        version = str(answer.get("metadata", {}).get("resourceVersion", ""))
        items = cast("list[Manifest]", answer.get("items") or [])
        return (self._desired(items[0]) if items else self._nothing()), version

    async def _events(self, resource_version: str) -> AsyncIterator[tuple[Desired | None, str]]:
        """Until the server ends the watch. Raises _GoneError, PortError."""
        query = {
            "fieldSelector": f"metadata.name={self._name}",
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": resource_version,
            "timeoutSeconds": str(WATCH_SECONDS),
        }
        timeout = aiohttp.ClientTimeout(
            total=WATCH_SECONDS + 30, sock_connect=REQUEST_SECONDS, sock_read=SILENCE_SECONDS
        )
        response = await self._open("GET", self._collection, query=query, timeout=timeout)
        try:
            while line := await _line(response, self._collection):
                event = cast("Manifest", json.loads(line))
                kind, found = event.get("type"), cast("Manifest", event.get("object") or {})
                if kind == "ERROR":
                    if found.get("code") in {410, 504}:
                        raise _GoneError
                    raise UnavailableError(f"watch of {self._collection}: {found.get('message', found)}")
                version = str(found.get("metadata", {}).get("resourceVersion", resource_version))
                if kind == "BOOKMARK":
                    yield None, version
                elif kind == "DELETED":
                    yield self._nothing(), version
                else:
                    yield self._desired(found), version
        except ValueError as error:
            raise UnavailableError(f"watch of {self._collection}: {error}") from error
        finally:
            response.close()

    def _nothing(self) -> Desired:
        self._uid = ""
        return Desired(generation=0)

    def _desired(self, found: Manifest) -> Desired:
        try:
            node = decode(InstancePoolNode, found)
        except FieldError as error:
            # The API server has checked it against the CRD, so it is one of a later version.
            raise UnavailableError(f"InstancePoolNode {self._name} can't be read: {error}") from error
        self._uid = node.metadata.uid
        self._memory.keep_desired(node.metadata.generation, node.spec)
        wanted = {assignment.revision for assignment in node.spec.assignments}
        self._revisions = {name: it for name, it in self._revisions.items() if name in wanted}
        self._memory.forget_revisions(wanted)
        return Desired(node.metadata.generation, node.spec.assignments, node.status, admission=node.spec.admission)

    async def _request(
        self,
        method: str,
        path: str,
        *,
        body: object = None,
        content_type: str = "application/json",
        query: Mapping[str, str] | None = None,
    ) -> Manifest:
        timeout = aiohttp.ClientTimeout(total=REQUEST_SECONDS)
        response = await self._open(method, path, body=body, content_type=content_type, query=query, timeout=timeout)
        try:
            return cast("Manifest", json.loads(await response.read()))
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            raise UnavailableError(f"{method} {path}: {one_line(error) or type(error).__name__}") from error
        finally:
            response.release()

    async def _open(
        self,
        method: str,
        path: str,
        *,
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109 - aiohttp's own, of four parts
        body: object = None,
        content_type: str = "application/json",
        query: Mapping[str, str] | None = None,
    ) -> aiohttp.ClientResponse:
        url = f"{self._client.configuration.host}{path}" + (f"?{urlencode(query)}" if query else "")
        headers = {"Accept": "application/json", "Content-Type": content_type, "User-Agent": FIELD_MANAGER}
        try:
            await self._client.update_params_for_auth(headers, [], ["BearerToken"], path, method, body)
            answer = await self._client.rest_client.request(
                method, url, headers=headers, body=body, _request_timeout=timeout
            )
            response = cast("aiohttp.ClientResponse", answer.response)
            if 200 <= response.status < 300:
                return response
            payload = await response.read()
        except (aiohttp.ClientError, TimeoutError, OSError, ConfigException) as error:
            raise UnavailableError(f"{method} {path}: {one_line(error) or type(error).__name__}") from error
        response.release()
        raise _error(f"{method} {path}", response.status, payload)


async def _line(response: aiohttp.ClientResponse, path: str) -> bytes:
    try:
        return await response.content.readline()
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        raise UnavailableError(f"watch of {path}: {one_line(error) or type(error).__name__}") from error


def _error(request: str, status: int, payload: bytes) -> Exception:
    message = payload[:500].decode(errors="replace")
    try:
        parsed: object = json.loads(payload)
    except ValueError:
        parsed = None
    if isinstance(parsed, dict):
        message = str(cast("Manifest", parsed).get("message") or message)
    text = f"{request}: {status}: {one_line(ValueError(message[:2000]))}"
    if status == 404:
        return AbsentError(text)
    if status == 410:
        return _GoneError()
    if status in {401, 403}:
        return ForbiddenError(text)
    # NB: what is too much for etcd is told as an error of the server's own.
    if status in {400, 413, 422} or (status == 500 and any(it in message for it in _TOO_MUCH)):
        return RefusedError(text, frozenset(int(it) for it in _ENTRY.findall(message)))
    return UnavailableError(text)
