"""Whether a client is still there while nothing is read from it: then its leaving says nothing."""

import asyncio
import socket
from collections.abc import Callable
from typing import Final

_LOOK_SECONDS: Final = 0.5
_TCP_ESTABLISHED: Final = 1


class Presence:
    """Of one client. `left` is called once it has gone."""

    def __init__(self, loop: asyncio.AbstractEventLoop, left: Callable[[], None]) -> None:
        self._loop = loop
        self._left = left
        self._timer: asyncio.TimerHandle | None = None

    def watch(self, transport: asyncio.Transport | None) -> None:
        """From now on. Idempotent."""
        if self._timer is None and transport is not None:
            self._timer = self._loop.call_later(_LOOK_SECONDS, self._look, transport)

    def stop(self) -> None:
        """Idempotent."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self, transport: asyncio.Transport) -> None:
        self._timer = None
        if _has_left(transport.get_extra_info("socket")):
            self._left()
        else:
            self.watch(transport)


def _has_left(client: socket.socket) -> bool:
    if client.family not in {socket.AF_INET, socket.AF_INET6}:
        return False
    return client.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] != _TCP_ESTABLISHED
