"""The thread that ends time slices: it raises the engine's epoch while guests run, and sleeps while none does."""

import threading
from collections.abc import Callable
from types import TracebackType
from typing import Final, Self

TICK_SECONDS: Final = 0.005


class Ticker:
    """Calls `tick` every TICK_SECONDS, for as long as `touch` was called in between.

    Invariant: when `touch` returns, a tick comes within two periods. Both sides hold the GIL when they look, so either
    the thread sees the new count before it goes to sleep, or `touch` sees that it sleeps and wakes it.
    """

    def __init__(self, tick: Callable[[], None]) -> None:
        self._tick = tick
        self._touched = 0
        self._asleep = False
        self._stop = threading.Event()
        self._awake = threading.Event()
        self._thread = threading.Thread(target=self._run, name="epoch-ticker", daemon=True)

    def touch(self) -> None:
        """A guest is about to run."""
        self._touched += 1
        if self._asleep:
            self._awake.set()

    def _run(self) -> None:
        seen = 0
        while not self._stop.wait(TICK_SECONDS):
            if self._touched != seen:
                seen = self._touched
                self._tick()
                continue
            # NB: a guest may have begun its slice before this period and still be in it: one tick more, then sleep.
            self._tick()
            self._asleep = True
            if self._touched == seen:
                self._awake.wait()
            self._asleep = False
            self._awake.clear()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._awake.set()
        self._thread.join()
