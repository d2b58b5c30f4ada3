"""/metrics, /healthz and /readyz on one address."""

from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

from aiohttp import web

from wasmpool_agent.errors import UserError

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Address:
    """Where to listen. Port 0 means any that is free."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> "Address | None":
        """From host:port; None for "none". Raises UserError."""
        if text == "none":
            return None
        host, _, port = text.rpartition(":")
        host = host.removeprefix("[").removesuffix("]")
        if not host or not port.isascii() or not port.isdigit() or int(port) > 65535:
            raise UserError(f"--listen is {text!r}, allowed is host:port such as 127.0.0.1:9464, or none")
        return cls(host, int(port))


@dataclass(frozen=True, slots=True)
class Probes:
    """What the answers are made from. `unready`: why it is not ready, or empty."""

    metrics: Callable[[], bytes]
    unready: Callable[[], str]
    progress: Callable[[], str]


@asynccontextmanager
async def serving(address: Address, probes: Probes) -> AsyncGenerator[Address]:
    """Listens until the end of the block; gives the real address. Raises UserError where it can't listen."""

    async def metrics(_: web.Request) -> web.Response:
        return web.Response(body=probes.metrics(), headers={"Content-Type": CONTENT_TYPE})

    async def healthz(_: web.Request) -> web.Response:
        # It is the event loop that answers: that is what is to be known.
        return web.Response(text=f"ok {probes.progress()}".strip() + "\n")

    async def readyz(_: web.Request) -> web.Response:
        unready = probes.unready()
        return web.Response(text=(unready or "ok") + "\n", status=503 if unready else 200)

    application = web.Application()
    application.add_routes([web.get("/metrics", metrics), web.get("/healthz", healthz), web.get("/readyz", readyz)])
    runner = web.AppRunner(application, access_log=None, handle_signals=False, shutdown_timeout=1.0)
    await runner.setup()
    try:
        site = web.TCPSite(runner, address.host, address.port)
        try:
            await site.start()
        except OSError as error:
            raise UserError(f"--listen {address.host}:{address.port}: {error.strerror or error}") from error
        port = next((name[1] for name in runner.addresses), address.port)
        yield Address(address.host, port)
    finally:
        await runner.cleanup()
