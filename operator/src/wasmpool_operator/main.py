"""The command `wasmpool-operator`."""

import argparse
import asyncio
import contextlib
import logging
import os
import random
import signal
import socket
import sys
import time
import uuid
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, cast

import kopf

from wasmpool_operator.cache import Cache, relist
from wasmpool_operator.handlers import registry_of
from wasmpool_operator.kube import open_cluster
from wasmpool_operator.lease import Lease, LeaseLost, LeaseSettings
from wasmpool_operator.metrics import Metrics
from wasmpool_operator.pool.agent_pod import AgentSettings
from wasmpool_operator.ports import Cluster, ClusterError
from wasmpool_operator.queue import ReconcileQueue
from wasmpool_operator.reconcile import Reconciler
from wasmpool_operator.recorder import Recorder
from wasmpool_operator.server import Readiness, serving
from wasmpool_operator.settings import kopf_settings
from wasmpool_operator.sweep import Sweeper
from wasmpool_operator.views import PoolKey

WORKERS = 4

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Options:
    """The command line."""

    agent_image: str
    agent_cluster_role: str
    lease_namespace: str
    lease_seconds: float
    listen: str
    log_level: str


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0 after a signal, 1 for an error, 2 for a wrong command line."""
    options = parse(arguments)
    kopf.configure(log_format=kopf.LogFormat.JSON)
    logging.getLogger().setLevel(options.log_level.upper())
    # kopf logs a line for every event of every object; aiohttp's and asyncio's own chatter says nothing either.
    logging.getLogger("kopf.objects").setLevel(logging.WARNING)
    logging.getLogger("asyncio").setLevel(logging.WARNING)
    failures: list[Exception] = []
    try:
        asyncio.run(run(options))
    except* (LeaseLost, ClusterError) as group:
        failures.extend(group.exceptions)
    for failure in failures:
        _log.error("ending: %s", failure)
    return 1 if failures else 0


def parse(arguments: Sequence[str] | None) -> Options:
    """The options, or exit with usage."""
    parser = argparse.ArgumentParser(prog="wasmpool-operator", description="The wasmpool operator.")
    commands = parser.add_subparsers(dest="command", required=True)
    runs = commands.add_parser("run", help="keep pools, their agents and the placement of workloads")
    runs.add_argument("--agent-image", required=True, help="image of the agents of pools that name none")
    runs.add_argument(
        "--agent-cluster-role", default="wasmpool-agent", help="ClusterRole that agents get in their namespace"
    )
    runs.add_argument(
        "--lease-namespace",
        default=os.environ.get("POD_NAMESPACE", "wasmpool-system"),
        help="namespace of the leader's Lease",
    )
    runs.add_argument(
        "--lease-seconds",
        type=float,
        default=15.0,
        help="how long a dead leader keeps the lease (default: %(default)s)",
    )
    runs.add_argument(
        "--listen", default="0.0.0.0:9464", help="address of /metrics, /healthz and /readyz (default: %(default)s)"
    )
    runs.add_argument("--log-level", default="info", choices=("debug", "info", "warning", "error"))
    found = vars(parser.parse_args(arguments))
    del found["command"]
    return Options(**found)


async def run(options: Options) -> None:
    """Wires the parts and runs them until a signal. Raises LeaseLost, and whatever ends one of the parts."""
    metrics, readiness, cache = Metrics(), Readiness(), Cache()
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for signum in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signum, stop.set)
    async with open_cluster() as cluster, serving(options.listen, metrics, readiness, lambda: None):
        lease = Lease(
            cluster,
            LeaseSettings(
                namespace=options.lease_namespace,
                duration=options.lease_seconds,
                renew_deadline=options.lease_seconds * 2 / 3,
                retry=min(2.0, options.lease_seconds / 5),
            ),
            identity=f"{os.environ.get('POD_NAME') or socket.gethostname()}_{uuid.uuid4()}",
            monotonic=time.monotonic,
            now=_now,
            on_standby=readiness.standby,
        )
        metrics.leader(False)
        if not await _unless(stop, lease.acquire()):
            return
        metrics.leader(True)
        try:
            await _lead(options, cluster, cache, metrics, readiness, lease, stop)
        finally:
            readiness.waiting_for = "the end"
            metrics.leader(False)
            await lease.release()


async def _lead(
    options: Options,
    cluster: Cluster,
    cache: Cache,
    metrics: Metrics,
    readiness: Readiness,
    lease: Lease,
    stop: asyncio.Event,
) -> None:
    settings = AgentSettings(options.agent_image, options.agent_cluster_role)
    recorder = Recorder(cluster, os.environ.get("POD_NAME") or socket.gethostname(), _now)
    reconciler = Reconciler(cluster, cache, settings, metrics, _now, recorder)
    queue: ReconcileQueue[PoolKey] = ReconcileQueue(
        reconciler.reconcile, on_error=lambda key, error: _failed(metrics, key, error)
    )
    metrics.watch_queue("InstancePool", lambda: queue.depth)
    sweeper = Sweeper(lambda: relist(cluster, cache), lambda: _add_all(cache, queue), random.Random())  # noqa: S311
    async with asyncio.TaskGroup() as tasks:
        # NB: kopf cancels every task that was begun after it; so all of ours begin before it.
        owned = [tasks.create_task(lease.keep())]
        readiness.waiting_for = "the first list"
        await sweeper.first()
        owned.append(tasks.create_task(sweeper.run()))
        owned.extend(tasks.create_task(queue.work()) for _ in range(WORKERS))
        readiness.waiting_for = ""
        try:
            await kopf.operator(
                registry=registry_of(cache, queue.add, sweeper.relisted),
                settings=kopf_settings(),
                clusterwide=True,
                standalone=True,
                # NB: without one kopf asks for the user's name, and an image's user 65532 has none.
                identity=cast("Any", socket.gethostname()),
                stop_flag=stop,
            )
        finally:
            readiness.waiting_for = "the end"
            for task in owned:
                task.cancel()


def _add_all(cache: Cache, queue: ReconcileQueue[PoolKey]) -> None:
    for key in sorted(cache.all_pools()):
        queue.add(key)


def _failed(metrics: Metrics, key: PoolKey, error: Exception) -> None:
    metrics.failed("InstancePool")
    if isinstance(error, ClusterError):
        _log.warning("pool %s: %s", key, error)
    else:
        _log.error("pool %s: reconcile failed", key, exc_info=error)


async def _unless(stop: asyncio.Event, work: Awaitable[None]) -> bool:
    """Runs `work` to its end, unless `stop` is set first; whether it came to its end."""
    working, stopping = asyncio.ensure_future(work), asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait({working, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            await working
            return True
        return False
    finally:
        for task in (working, stopping):
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task


def _now() -> datetime:
    return datetime.now(UTC)


if __name__ == "__main__":
    sys.exit(main())
