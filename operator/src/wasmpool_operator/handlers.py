"""What kopf calls: every handler tells the cache and adds keys to the queue, nothing else.

kopf is the informer and the lifecycle. Its other handlers keep state in annotations and its indices keep ghosts.
"""

import dataclasses
import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import kopf

from wasmpool_operator.cache import Cache
from wasmpool_operator.ports import Resource
from wasmpool_operator.resources import (
    DAEMON_SETS,
    ENDPOINT_SLICES,
    INSTANCE_POOL_NODES,
    INSTANCE_POOLS,
    NAMESPACES,
    NETWORK_POLICIES,
    NODES,
    PODS,
    SERVICES,
    WASM_WORKLOADS,
)
from wasmpool_operator.views import PoolKey

WATCHED = (
    INSTANCE_POOLS,
    INSTANCE_POOL_NODES,
    WASM_WORKLOADS,
    DAEMON_SETS,
    PODS,
    NODES,
    NAMESPACES,
    SERVICES,
    ENDPOINT_SLICES,
    NETWORK_POLICIES,
)
TOKEN_REREAD = timedelta(minutes=10)
"""A service account's token is renewed on disk; kopf logs in again this often and picks it up."""


def registry_of(cache: Cache, add: Callable[[PoolKey], None], relisted: Callable[[], None]) -> kopf.OperatorRegistry:
    """Handlers for every kind that is watched. `relisted` is called for objects that come from a list, not a watch."""
    registry = kopf.OperatorRegistry()
    kopf.on.login(registry=registry)(_login)
    for resource in WATCHED:
        _listen(registry, resource, cache, add, relisted)
    return registry


def _listen(
    registry: kopf.OperatorRegistry,
    resource: Resource,
    cache: Cache,
    add: Callable[[PoolKey], None],
    relisted: Callable[[], None],
) -> None:
    @kopf.on.event(resource.group, resource.version, resource.plural, registry=registry, id=resource.plural)
    async def on_event(event: kopf.RawEvent, **_: Any) -> None:
        if event["type"] is None:
            relisted()
        for key in cache.observe(resource, dict(event["object"]), deleted=event["type"] == "DELETED"):
            add(key)


async def _login(settings: kopf.OperatorSettings, **_: Any) -> kopf.ConnectionInfo | None:
    if os.environ.get("KUBECONFIG"):
        return kopf.login_with_kubeconfig(settings=settings)
    found = kopf.login_with_service_account(settings=settings)
    if found is None:
        return None
    # NB: kopf would ask for kubernetes.default.svc; a cluster need not have a DNS.
    host, port = os.environ["KUBERNETES_SERVICE_HOST"], os.environ["KUBERNETES_SERVICE_PORT"]
    server = f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"
    return dataclasses.replace(found, server=server, expiration=datetime.now(UTC) + TOKEN_REREAD)
