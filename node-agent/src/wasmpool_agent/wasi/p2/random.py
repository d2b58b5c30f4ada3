"""wasi:random. The insecure functions are as good as the others: nothing is gained by worse numbers."""

import os
from typing import Final

from wasmpool_agent.wasi.p2.host import Host
from wasmpool_agent.wasi.p2.registry import function
from wasmpool_agent.wasmtime_async import HostTrap

RANDOM_MOST_BYTES: Final = 16 * 1024**2
"""Of one call: it holds up the other guests while it runs (about 40 ms for so much)."""


@function("wasi:random/random#get-random-bytes")
def get_random_bytes(_: Host, length: int) -> bytes:
    if length > RANDOM_MOST_BYTES:
        raise HostTrap(f"get-random-bytes of {length} bytes; at most {RANDOM_MOST_BYTES} are allowed")
    return os.urandom(length)


@function("wasi:random/random#get-random-u64")
def get_random_u64(_: Host) -> int:
    return int.from_bytes(os.urandom(8), "little")


@function("wasi:random/insecure#get-insecure-random-bytes")
def get_insecure_random_bytes(host: Host, length: int) -> bytes:
    return get_random_bytes(host, length)


@function("wasi:random/insecure#get-insecure-random-u64")
def get_insecure_random_u64(host: Host) -> int:
    return get_random_u64(host)


@function("wasi:random/insecure-seed#insecure-seed")
def insecure_seed(host: Host) -> tuple[int, int]:
    return get_random_u64(host), get_random_u64(host)
