"""What a client may send and how long it may take."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """Bytes, counts and seconds.

    `head_bytes`, `headers`: of a request's line and headers, else 431. `body_bytes`: else 413. `head_seconds`: from a
    head's first byte, or from the connection's begin, to its end, else 408. `idle_seconds`: between two requests.
    `body_seconds`: without a byte of a body that is waited for. `write_seconds`: without the client taking any.
    `discard_bytes`: of a body that nobody wanted, read so that the connection can be used again.
    """

    head_bytes: int = 32 * 1024
    headers: int = 128
    body_bytes: int = 1024**3
    head_seconds: float = 10.0
    idle_seconds: float = 60.0
    body_seconds: float = 30.0
    write_seconds: float = 30.0
    discard_bytes: int = 256 * 1024
