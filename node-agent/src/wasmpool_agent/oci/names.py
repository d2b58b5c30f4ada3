"""Names to addresses, in threads of its own: a name server that does not answer holds up nobody who asks no names."""

import asyncio
import socket
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from aiohttp.abc import AbstractResolver, ResolveResult

THREADS: Final = 64
"""A question that nobody answers keeps its thread after whoever asked has gone: several tenants may have some."""


class Resolver(AbstractResolver):
    """Asks the system's resolver, at most `THREADS` times at once. An answer that takes longer is none."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="names")

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """Raises OSError."""
        asking = asyncio.get_running_loop().run_in_executor(
            self._threads, lambda: socket.getaddrinfo(host, port, family, socket.SOCK_STREAM, 0, socket.AI_ADDRCONFIG)
        )
        try:
            async with asyncio.timeout(self._seconds):
                found = await asking
        except TimeoutError:
            raise OSError(None, f"no name server has said within {self._seconds:g} s where {host} is") from None
        return [
            ResolveResult(
                hostname=host,
                host=str(address[0]),
                port=int(address[1]),
                family=kind,
                proto=protocol,
                flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
            )
            for kind, _, protocol, _, address in found
        ]

    async def close(self) -> None:
        """Idempotent. Threads that still wait are not waited for."""
        self._threads.shutdown(wait=False, cancel_futures=True)
