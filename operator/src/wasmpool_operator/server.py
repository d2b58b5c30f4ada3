"""/metrics, /healthz and /readyz on one port."""

from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from aiohttp import web

from wasmpool_operator.metrics import Metrics

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


@dataclass(slots=True)
class Readiness:
    """Ready once the cluster has been read and while this replica leads, or while it waits for another one to end.

    `waiting_for` says what is missing. NB: a replica in waiting has to be Ready: otherwise a Deployment with two of
    them never gets available, and a PodDisruptionBudget never lets the leader go.
    """

    waiting_for: str = "the lease"

    @property
    def ready(self) -> bool:
        """Whether this replica does its work, or would at once if the leader ended."""
        return not self.waiting_for

    def standby(self) -> None:
        """Another replica leads."""
        self.waiting_for = ""


@asynccontextmanager
async def serving(
    listen: str, metrics: Metrics, readiness: Readiness, healthy: Callable[[], str | None]
) -> AsyncGenerator[None]:
    """Serves on `listen` (host:port) until exit. `healthy` returns what is wrong, or None."""

    async def get_metrics(_request: web.Request) -> web.Response:
        return web.Response(body=metrics.text(), headers={"Content-Type": CONTENT_TYPE})

    async def get_healthz(_request: web.Request) -> web.Response:
        problem = healthy()
        return web.Response(status=200 if problem is None else 500, text=problem or "ok")

    async def get_readyz(_request: web.Request) -> web.Response:
        if readiness.ready:
            return web.Response(text="ok")
        return web.Response(status=503, text=f"waiting for {readiness.waiting_for}")

    app = web.Application()
    app.router.add_get("/metrics", get_metrics)
    app.router.add_get("/healthz", get_healthz)
    app.router.add_get("/readyz", get_readyz)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        host, _, port = listen.rpartition(":")
        await web.TCPSite(runner, host.strip("[]") or None, int(port)).start()
        yield
    finally:
        await runner.cleanup()
