"""Carries out plans. Takes no decisions: every refusal and conflict goes back to the reconcile."""

import asyncio
import logging
from collections.abc import Sequence

from wasmpool_operator.actions import Action, Apply, Create, Delete, PatchAssignments, Step, WriteStatus
from wasmpool_operator.cache import Cache
from wasmpool_operator.pool.observe import Memory, Sent, mark_of_manifest
from wasmpool_operator.ports import Cluster, ClusterError, Conflict, Manifest, Refused, Resource
from wasmpool_operator.recorder import Recorder
from wasmpool_operator.resources import INSTANCE_POOL_NODES, resource_of

CONCURRENT_WRITES = 16

_log = logging.getLogger(__name__)


class Applier:
    """Writes to the cluster, and lets the cache see each answer at once, so that the next plan knows its own deeds."""

    def __init__(self, cluster: Cluster, cache: Cache, recorder: Recorder) -> None:
        self._cluster = cluster
        self._recorder = recorder
        self._cache = cache
        self._slots = asyncio.Semaphore(CONCURRENT_WRITES)

    async def apply(self, steps: Sequence[Step], memory: Memory) -> bool:
        """Each step after the one before. True if anything was written. Raises the first ClusterError of a step."""
        for step in steps:
            results = await asyncio.gather(
                *(self._limited(action, memory) for action in step.actions), return_exceptions=True
            )
            errors = [result for result in results if isinstance(result, BaseException)]
            # A conflict means that the plan is stale: whatever else went wrong may be for that reason alone.
            errors.sort(key=lambda error: not isinstance(error, Conflict))
            if errors:
                raise errors[0]
        return any(step.actions for step in steps)

    async def _limited(self, action: Action, memory: Memory) -> None:
        async with self._slots:
            await self._perform(action, memory)

    async def _perform(self, action: Action, memory: Memory) -> None:
        match action:
            case Apply(manifest, intent, known_as):
                answer = await self._cluster.apply(manifest)
                resource = resource_of(manifest)
                name = known_as or str(manifest["metadata"]["name"])
                memory.sent[resource, name] = Sent(intent, mark_of_manifest(answer))
                self._learn(resource, answer)
                _log.info("applied %s", _name(manifest))
            case Create(manifest):
                await self._create(manifest)
            case WriteStatus(manifest, about, notes):
                if await self._write_status(manifest):
                    await self._recorder.record(about, notes)
            case PatchAssignments(namespace, name, operations):
                patched = await self._cluster.patch_json(INSTANCE_POOL_NODES, namespace, name, operations)
                if patched is None:
                    self._cache.pool_nodes.forget(namespace, name)
                    raise Conflict(f"PATCH InstancePoolNode {namespace}/{name}", 404, "it is gone")
                self._learn(INSTANCE_POOL_NODES, patched)
            case Delete(resource, namespace, name, uid, why):
                # NB: the cache is not told: the object may live on for a while, and the watch will say when it is gone.
                if not await self._cluster.delete(resource, namespace, name, uid=uid):
                    self._forget(resource, namespace, name)
                _log.info("deleted %s %s/%s: %s", resource.kind, namespace, name, why)

    async def _create(self, manifest: Manifest) -> None:
        resource, metadata = resource_of(manifest), manifest["metadata"]
        try:
            self._learn(resource, await self._cluster.create(manifest))
        except Conflict:
            present = await self._cluster.get(resource, str(metadata["namespace"]), str(metadata["name"]))
            if present is None:
                raise
            self._learn(resource, present)
        else:
            _log.info("created %s", _name(manifest))

    async def _write_status(self, manifest: Manifest) -> bool:
        """False where the object is gone."""
        resource, metadata = resource_of(manifest), manifest["metadata"]
        try:
            self._learn(resource, await self._cluster.apply_status(manifest))
        except ClusterError as error:
            if not (isinstance(error, Refused) and error.status == 404):
                raise
            self._forget(resource, str(metadata["namespace"]), str(metadata["name"]))
            return False
        return True

    def _learn(self, resource: Resource, answer: Manifest) -> None:
        self._cache.tables()[resource].put(answer)

    def _forget(self, resource: Resource, namespace: str, name: str) -> None:
        self._cache.tables()[resource].forget(namespace, name)


def _name(manifest: Manifest) -> str:
    return f"{manifest['kind']} {manifest['metadata'].get('namespace', '')}/{manifest['metadata']['name']}"
