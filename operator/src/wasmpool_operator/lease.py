"""Leader election by a Lease. One replica works; the others wait; who loses the lease ends its process.

Clocks of different machines are never compared: a lease counts as abandoned when it has not changed for its whole
duration, measured on our own monotonic clock.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from wasmpool_operator.ports import Cluster, ClusterError, Conflict, Manifest
from wasmpool_operator.resources import LEASES

_log = logging.getLogger(__name__)


class LeaseLost(Exception):  # noqa: N818 - it says what happened
    """Another replica leads, or may. The process must end before it writes anything more."""


@dataclass(frozen=True, slots=True)
class LeaseSettings:
    """Seconds. NB: renew_deadline < duration, so that the loser stops before the next one starts."""

    namespace: str
    name: str = "wasmpool-operator"
    duration: float = 15.0
    renew_deadline: float = 10.0
    retry: float = 2.0


class Lease:
    """`identity` must be another one for every process. `on_standby` is called whenever another one is seen to lead.

    `monotonic`, `now` and `sleep` are passed in for tests.
    """

    def __init__(
        self,
        cluster: Cluster,
        settings: LeaseSettings,
        identity: str,
        *,
        monotonic: Callable[[], float],
        now: Callable[[], datetime],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        on_standby: Callable[[], None] = lambda: None,
    ) -> None:
        self._cluster = cluster
        self._settings = settings
        self._identity = identity
        self._monotonic = monotonic
        self._now = now
        self._sleep = sleep
        self._on_standby = on_standby
        self._seen_version = ""
        self._seen_at = 0.0

    async def acquire(self) -> None:
        """Returns once the lease is ours. Waits through errors of the API server."""
        while True:
            try:
                if await self._try():
                    _log.info("leading as %s", self._identity)
                    return
                self._on_standby()
            except ClusterError as error:
                _log.warning("can't take the lease: %s", error)
            await self._sleep(self._settings.retry)

    async def keep(self) -> None:
        """Renews for ever. Raises LeaseLost."""
        renewed = self._monotonic()
        while True:
            await self._sleep(self._settings.retry)
            left = renewed + self._settings.renew_deadline - self._monotonic()
            if left <= 0:
                raise LeaseLost(f"the lease could not be renewed for {self._settings.renew_deadline:g} s")
            try:
                async with asyncio.timeout(left):
                    if not await self._try():
                        raise LeaseLost("another replica has taken the lease")
                renewed = self._monotonic()
            except (ClusterError, TimeoutError) as error:
                _log.warning("can't renew the lease: %s", error)

    async def release(self) -> None:
        """Lets the next one start at once. Call it when nothing of ours writes any more."""
        try:
            lease = await self._cluster.get(LEASES, self._settings.namespace, self._settings.name)
            if lease is not None and lease["spec"].get("holderIdentity") == self._identity:
                await self._write(lease, holder="", transitions=int(lease["spec"].get("leaseTransitions", 0)))
        except ClusterError as error:
            _log.warning("can't release the lease, the next leader waits for it to run out: %s", error)

    async def _try(self) -> bool:
        lease = await self._cluster.get(LEASES, self._settings.namespace, self._settings.name)
        try:
            if lease is None:
                await self._cluster.create(self._manifest())
                return True
            spec: Manifest = lease.get("spec") or {}
            holder = str(spec.get("holderIdentity") or "")
            if holder and holder != self._identity and not self._abandoned(lease):
                return False
            transitions = int(spec.get("leaseTransitions") or 0) + (holder != self._identity)
            await self._write(lease, holder=self._identity, transitions=transitions)
        except Conflict:
            return False  # somebody else was faster
        return True

    def _abandoned(self, lease: Manifest) -> bool:
        version = str(lease["metadata"]["resourceVersion"])
        if version != self._seen_version:
            self._seen_version, self._seen_at = version, self._monotonic()
            return False
        spec: Manifest = lease.get("spec") or {}
        seconds = float(spec.get("leaseDurationSeconds") or self._settings.duration)
        return self._monotonic() - self._seen_at > seconds

    async def _write(self, lease: Manifest, *, holder: str, transitions: int) -> None:
        present: Manifest = lease.get("spec") or {}
        acquired = present.get("acquireTime") if present.get("holderIdentity") == holder else None
        spec = self._spec(holder, transitions) | ({"acquireTime": acquired} if acquired else {})
        answer = await self._cluster.patch_json(
            LEASES,
            self._settings.namespace,
            self._settings.name,
            [
                {"op": "test", "path": "/metadata/resourceVersion", "value": lease["metadata"]["resourceVersion"]},
                {"op": "add", "path": "/spec", "value": spec},
            ],
        )
        if answer is None:
            raise Conflict("PATCH Lease", 404, "it is gone")

    def _manifest(self) -> Manifest:
        return {
            "apiVersion": LEASES.api_version,
            "kind": LEASES.kind,
            "metadata": {"name": self._settings.name, "namespace": self._settings.namespace},
            "spec": self._spec(self._identity, 0),
        }

    def _spec(self, holder: str, transitions: int) -> Manifest:
        now = self._now().astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        return {
            "holderIdentity": holder,
            "leaseDurationSeconds": int(self._settings.duration) if holder else 1,
            "acquireTime": now,
            "renewTime": now,
            "leaseTransitions": transitions,
        }
