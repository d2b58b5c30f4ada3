"""`Cluster` over the official client. The only module that imports `kubernetes`.

Requests are made on plain dicts by path: the generated classes cost 35 MB of memory, parse forty times slower and
refuse objects that are legal but partial.
"""

import json
import os
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final, cast
from urllib.parse import urlencode

import aiohttp
from kubernetes.aio.client.api_client import ApiClient
from kubernetes.aio.client.configuration import Configuration
from kubernetes.aio.config import incluster_config, kube_config

from wasmpool_api.codec import APPLY_PATCH, apply_patch
from wasmpool_api.meta import MANAGED_BY
from wasmpool_operator.ports import (
    ClusterError,
    Conflict,
    Manifest,
    NotServedYet,
    Page,
    Refused,
    Resource,
    Unavailable,
)
from wasmpool_operator.resources import resource_of

_kube_config: Any = kube_config  # untyped in an otherwise typed library
_incluster_config: Any = incluster_config
REQUEST_TIMEOUT_SECONDS: Final = 30.0
PAGE_SIZE: Final = 500


@asynccontextmanager
async def open_cluster() -> AsyncGenerator["KubeCluster"]:
    """The cluster of $KUBECONFIG, or else of the pod's service account; closed on exit."""
    configuration = Configuration()
    if os.environ.get("KUBECONFIG"):
        await _kube_config.load_kube_config(client_configuration=configuration, persist_config=False)
    else:
        _incluster_config.load_incluster_config(client_configuration=configuration)
    async with ApiClient(configuration) as client:
        yield KubeCluster(client)


class KubeCluster:
    """Implements `ports.Cluster`."""

    def __init__(self, client: ApiClient) -> None:
        self._client: Any = client

    async def get(self, resource: Resource, namespace: str, name: str) -> Manifest | None:
        """See `ports.Cluster`."""
        return await self._request("GET", resource.path(namespace, name), absent_is_none=True)

    async def list_pages(
        self, resource: Resource, *, namespace: str = "", label_selector: str = "", field_selector: str = ""
    ) -> AsyncIterator[Page]:
        """See `ports.Cluster`."""
        selectors = {"labelSelector": label_selector, "fieldSelector": field_selector}
        query = {"limit": str(PAGE_SIZE)} | {name: text for name, text in selectors.items() if text}
        while True:
            body = await self._must("GET", resource.path(namespace), query=query)
            metadata = body.get("metadata", {})
            yield Page(body.get("items") or (), str(metadata.get("resourceVersion", "")))
            if not (token := metadata.get("continue")):
                return
            query["continue"] = token

    async def create(self, manifest: Manifest) -> Manifest:
        """See `ports.Cluster`."""
        path = resource_of(manifest).path(_namespace(manifest))
        return await self._must("POST", path, body=manifest, query={"fieldManager": MANAGED_BY})

    async def apply(self, manifest: Manifest) -> Manifest:
        """See `ports.Cluster`."""
        return await self._apply(manifest, "")

    async def apply_status(self, manifest: Manifest) -> Manifest:
        """See `ports.Cluster`."""
        return await self._apply(manifest, "/status")

    async def patch_json(
        self, resource: Resource, namespace: str, name: str, operations: Sequence[Manifest]
    ) -> Manifest | None:
        """See `ports.Cluster`."""
        try:
            return await self._request(
                "PATCH",
                resource.path(namespace, name),
                body=list(operations),
                content_type="application/json-patch+json",
                query={"fieldManager": MANAGED_BY, "fieldValidation": "Strict"},
                absent_is_none=True,
            )
        except Refused as error:
            # NB: the API server answers a failed `test` with 422 Invalid and no cause to tell it by, only this text.
            if error.status == 422 and "test" in error.message.lower() and "failed" in error.message.lower():
                raise Conflict(error.request, error.status, error.message) from error
            raise

    async def delete(self, resource: Resource, namespace: str, name: str, *, uid: str = "") -> bool:
        """See `ports.Cluster`."""
        options: Manifest = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Background"}
        if uid:
            options["preconditions"] = {"uid": uid}
        answer = await self._request("DELETE", resource.path(namespace, name), body=options, absent_is_none=True)
        return answer is not None

    async def _apply(self, manifest: Manifest, subresource: str) -> Manifest:
        name: str = manifest["metadata"]["name"]
        return await self._must(
            "PATCH",
            resource_of(manifest).path(_namespace(manifest), name) + subresource,
            body=apply_patch(manifest),
            content_type=APPLY_PATCH,
            query={"fieldManager": MANAGED_BY, "force": "true", "fieldValidation": "Strict"},
        )

    async def _must(
        self,
        method: str,
        path: str,
        *,
        body: object = None,
        content_type: str = "application/json",
        query: dict[str, str] | None = None,
    ) -> Manifest:
        answer = await self._request(method, path, body=body, content_type=content_type, query=query)
        assert answer is not None  # noqa: S101 - absent_is_none is off
        return answer

    async def _request(
        self,
        method: str,
        path: str,
        *,
        body: object = None,
        content_type: str = "application/json",
        query: dict[str, str] | None = None,
        absent_is_none: bool = False,
    ) -> Manifest | None:
        request = f"{method} {path}"
        url = f"{self._client.configuration.host}{path}" + (f"?{urlencode(query)}" if query else "")
        headers = {"Accept": "application/json", "Content-Type": content_type, "User-Agent": MANAGED_BY}
        try:
            await self._client.update_params_for_auth(headers, [], ["BearerToken"], path, method, body)
            response = await self._client.rest_client.request(
                method, url, headers=headers, body=body, _request_timeout=REQUEST_TIMEOUT_SECONDS
            )
            payload: bytes = await response.read()
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            raise Unavailable(request, 0, str(error) or type(error).__name__) from error
        if 200 <= response.status < 300:
            return cast("Manifest", json.loads(payload))
        if response.status == 404 and absent_is_none:
            return None
        raise error_of(request, response.status, payload)


def _namespace(manifest: Manifest) -> str:
    return str(manifest["metadata"].get("namespace", ""))


def error_of(request: str, status: int, payload: bytes) -> ClusterError:
    """What an answer that is no success means. `payload`: its body, a Status or anything else."""
    try:
        parsed: object = json.loads(payload)
    except ValueError:
        parsed = None
    message = payload[:500].decode(errors="replace")
    if isinstance(parsed, dict):
        message = str(cast("Manifest", parsed).get("message") or message)
    if status == 409:
        return Conflict(request, status, message)
    # NB: the API server's word for a field that its schema of the kind lacks, a fault of ours and not of its own.
    if status == 500 and "failed to create typed patch object" in message:
        return Refused(request, status, message)
    if status == 429 or status >= 500:
        return Unavailable(request, status, message)
    # NB: OwnerReferencesPermissionEnforcement looks kinds up in a list that it reads anew every ten seconds.
    if status == 403 and "cannot find RESTMapping" in message:
        return NotServedYet(request, status, message)
    if status in {400, 401, 403, 404, 405, 415, 422}:
        return Refused(request, status, message)
    return ClusterError(request, status, message)
