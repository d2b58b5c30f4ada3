"""What a client may send and how long it may take."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """Bytes, counts and seconds.

    `target_bytes`: of a request's target, else 414. `head_bytes`, `headers`: of target and headers together, else 431;
    trailers and what frames chunks have as much again. `body_bytes`: else 413. `head_seconds`: from a head's first
    byte, or from the connection's begin, to its end, else 408. `idle_seconds`: between two requests. `body_seconds`:
    without a byte of a body that is waited for, else 408. `write_seconds`: for a client to take what waits for it,
    which is some 100 KiB. `discard_bytes`: of a body that nobody wanted, read so that the connection can be used
    again. `linger_seconds`: for a client to read the answer to what it has not sent whole.
    """

    target_bytes: int = 16 * 1024
    head_bytes: int = 32 * 1024
    headers: int = 128
    body_bytes: int = 1024**3
    head_seconds: float = 10.0
    idle_seconds: float = 60.0
    body_seconds: float = 30.0
    write_seconds: float = 30.0
    discard_bytes: int = 256 * 1024
    linger_seconds: float = 2.0
