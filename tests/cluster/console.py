"""What the tool says, and the error whose message is all that its user needs."""

import sys
import time
from collections.abc import Generator
from contextlib import contextmanager


class ClusterError(Exception):
    """Something that the person at the terminal can act on: shown without a traceback."""


def say(text: str) -> None:
    """One line of progress, on stderr, so that stdout stays the command's answer."""
    print(text, file=sys.stderr, flush=True)


@contextmanager
def step(text: str) -> Generator[None]:
    """Say what was done and how long it took, after it was done; nothing if it raised."""
    began = time.monotonic()
    yield
    say(f"{time.monotonic() - began:6.1f} s  {text}")
