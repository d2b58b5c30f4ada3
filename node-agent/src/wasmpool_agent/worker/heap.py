"""Keeps Python's garbage collector away from what stays.

A full collection looks at everything that has been loaded, some 25 ms and more, and all guests wait for it. What was
loaded is set aside instead; what requests leave behind is collected as before. Nothing is set aside for ever: modules
that were dropped are looked for together, LOOK_SECONDS after the first of them.
"""

import asyncio
import gc
from typing import Final

LOOK_SECONDS: Final = 30.0


class Heap:
    """Of this process."""

    def __init__(self) -> None:
        self._timer: asyncio.TimerHandle | None = None

    def grown(self) -> None:
        """What is here now is here to stay."""
        gc.collect()
        gc.freeze()

    def shrunk(self) -> None:
        """Some of it isn't wanted any more."""
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(LOOK_SECONDS, self._look)

    def _look(self) -> None:
        self._timer = None
        gc.unfreeze()
        self.grown()
