"""What guests wait for."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(slots=True)
class Until:
    """A moment of the event loop's clock, in seconds."""

    when: float

    def ready(self) -> bool:
        """See Wait."""
        return asyncio.get_running_loop().time() >= self.when

    def arm(self, wake: Callable[[], None]) -> Callable[[], None]:
        """See Wait."""
        return asyncio.get_running_loop().call_at(self.when, wake).cancel
