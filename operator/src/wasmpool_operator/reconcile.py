"""Reconciles one pool: observe, plan, apply, publish."""

import logging
from collections.abc import Callable
from datetime import datetime

from wasmpool_api.codec import decode
from wasmpool_api.meta import agent_name
from wasmpool_api.reasons import PoolReason
from wasmpool_operator.actions import Step
from wasmpool_operator.apply import Applier
from wasmpool_operator.cache import Cache
from wasmpool_operator.metrics import Metrics
from wasmpool_operator.plan import Plan, plan, status_action
from wasmpool_operator.pool.agent_pod import AgentSettings
from wasmpool_operator.pool.observe import Lookup, Memory, ObjectName, Survey, huge_pages_of, managed, observe
from wasmpool_operator.pool.plan import Problem
from wasmpool_operator.ports import Cluster, Conflict, NotServedYet, Refused
from wasmpool_operator.recorder import Recorder
from wasmpool_operator.resources import DAEMON_SETS, PODS, ROLE_BINDINGS, SERVICE_ACCOUNTS
from wasmpool_operator.views import Plain, Pod, PoolKey, controlled_by

CONFLICT_RETRY_SECONDS = 0.2
NOT_SERVED_YET_RETRY_SECONDS = 1.0
LOOK_UP_ROUNDS = 5
"""How often in one reconcile names are looked up and the plan is made anew. What is left is left to the next."""

_log = logging.getLogger(__name__)


class Reconciler:
    """Owns what is remembered of each pool. `clock` gives the time in UTC."""

    def __init__(
        self,
        cluster: Cluster,
        cache: Cache,
        settings: AgentSettings,
        metrics: Metrics,
        clock: Callable[[], datetime],
        recorder: Recorder,
    ) -> None:
        self._cluster = cluster
        self._cache = cache
        self._settings = settings
        self._metrics = metrics
        self._clock = clock
        self._applier = Applier(cluster, cache, recorder)
        self._memories: dict[PoolKey, Memory] = {}

    async def reconcile(self, key: PoolKey) -> float | None:
        """Seconds after which the pool wants to be looked at again, or None. Raises ClusterError for a later retry."""
        memory = self._memories.setdefault(key, Memory())
        with self._metrics.reconciling("InstancePool"):
            try:
                return await self._reconcile(key, memory)
            except Conflict as conflict:
                _log.info("pool %s: planning again: %s", key, conflict)
                return CONFLICT_RETRY_SECONDS
            except NotServedYet as early:
                # A back-off would make the first pool after an installation wait long after the kind is known.
                _log.info("pool %s: waiting for the API server: %s", key, early)
                return NOT_SERVED_YET_RETRY_SECONDS

    async def _reconcile(self, key: PoolKey, memory: Memory) -> float | None:
        await self._look_up_names(key, memory)
        observed = observe(self._cache, memory, key, self._clock())
        found = plan(observed, self._settings)
        if found.to_survey:
            # Those that turn out not to fit leave their place to others, which are surveyed in their turn.
            for node in sorted(found.to_survey):
                memory.surveys[node] = await self._survey(node)
            observed = observe(self._cache, memory, key, self._clock())
            found = plan(observed, self._settings)
        for _ in range(LOOK_UP_ROUNDS):
            if not found.to_look_up:
                break
            # What is found at one name may send the plan to the next.
            for name in sorted(found.to_look_up, key=str):
                memory.lookups[name] = await self._look_up(name)
            observed = observe(self._cache, memory, key, self._clock())
            found = plan(observed, self._settings)
        memory.drain_since = {name: memory.drain_since.get(name, observed.now) for name in found.draining}
        try:
            wrote = await self._applier.apply(found.steps, memory)
        except Refused as error:
            problem = Problem(PoolReason.WRITE_REFUSED, str(error))
            await self._publish(key, plan(observed, self._settings, write_refused=problem), memory)
            raise
        left = {it.metadata.uid: it for it in (*observed.pool_nodes, *self._cache.pool_nodes.of_pool(key))}
        memory.pool_nodes = left
        await self._publish(key, found, memory)
        if observed.pool is None and not left:
            del self._memories[key]
        # What was written may allow the next thing; its echo on the watch is no news to the cache and won't come here.
        return 0.0 if wrote or found.to_survey else found.recheck_seconds

    async def _look_up(self, name: ObjectName) -> Lookup:
        found = await self._cluster.get(name.resource, name.namespace, name.name)
        return Lookup(self._clock(), decode(Plain, found).metadata if found is not None else None)

    async def _publish(self, key: PoolKey, found: Plan, memory: Memory) -> None:
        pool = self._cache.pools.get(key.namespace, key.name)
        if pool is None or found.status is None:
            self._metrics.forget_pool(key)
            return
        self._metrics.pool(key, found.status)
        action = status_action(pool, found.status)
        if action is not None:
            await self._applier.apply((Step("pool status", (action,)),), memory)

    async def _survey(self, node: str) -> Survey:
        """What others' pods take of a node's huge pages. They are not watched: there may be a hundred thousand."""
        taken: dict[str, int] = {}
        async for page in self._cluster.list_pages(PODS, field_selector=f"spec.nodeName={node}"):
            for manifest in page.items:
                # NB: what others write into conditions must not stop us; of the status the phase is enough.
                phase = manifest.get("status", {}).get("phase", "")
                pod = decode(Pod, manifest | {"status": {"phase": phase}})
                if managed(pod):
                    continue
                for resource, amount in huge_pages_of(pod).items():
                    taken[resource] = taken.get(resource, 0) + amount
        return Survey(self._clock(), taken)

    async def _look_up_names(self, key: PoolKey, memory: Memory) -> None:
        """Reads what may stand in the way of the pool's children: others' objects don't carry our label."""
        pool = self._cache.pools.get(key.namespace, key.name)
        if pool is None:
            return
        name = agent_name(key.name)
        for resource in (SERVICE_ACCOUNTS, ROLE_BINDINGS, DAEMON_SETS):
            table = self._cache.tables()[resource]
            known = table.get(key.namespace, name)
            if known is not None and controlled_by(known.metadata, pool.metadata.uid):
                continue
            if known is None and (resource, name) in memory.sent:
                continue
            found = await self._cluster.get(resource, key.namespace, name)
            if found is not None:
                table.put(found)
            else:
                table.forget(key.namespace, name)
