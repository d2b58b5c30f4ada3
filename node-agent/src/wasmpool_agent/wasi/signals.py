"""What streams say, and how those who wait hear of it: for whoever has bytes, without the interfaces of guests."""

from collections.abc import Callable


class StreamClosed(Exception):  # noqa: N818 - it says what happened
    """Nobody takes, or gives, anything here any more."""


class StreamFailed(Exception):  # noqa: N818 - it says what happened
    """The last operation failed; the message says why. `code`: for interfaces that have codes of their own."""

    def __init__(self, message: str, code: object = None) -> None:
        super().__init__(message)
        self.code = code


class Signal:
    """A wait for something that happens once or again: whoever makes it happen calls `set`."""

    __slots__ = ("_is_ready", "_wakes")

    def __init__(self, is_ready: Callable[[], bool]) -> None:
        self._is_ready = is_ready
        self._wakes: list[Callable[[], None]] = []

    def set(self) -> None:
        """It may be ready now."""
        wakes, self._wakes = self._wakes, []
        for wake in wakes:
            wake()

    def ready(self) -> bool:
        """See Wait."""
        return self._is_ready()

    def arm(self, wake: Callable[[], None]) -> Callable[[], None]:
        """See Wait."""
        self._wakes.append(wake)

        def call_off() -> None:
            if wake in self._wakes:
                self._wakes.remove(wake)

        return call_off
