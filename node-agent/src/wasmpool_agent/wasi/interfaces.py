"""The interfaces of WASI 0.2 that this agent hosts, by name. Without Wasmtime: whoever judges modules may read it."""

from typing import Final

VERSION: Final = "0.2"
RUN: Final = "wasi:cli/run"
HANDLER: Final = "wasi:http/incoming-handler"
"""What a component exports to be a command, or to answer requests."""

HOSTED: Final = frozenset(
    {
        "wasi:cli/environment",
        "wasi:cli/exit",
        "wasi:cli/stderr",
        "wasi:cli/stdin",
        "wasi:cli/stdout",
        "wasi:cli/terminal-stderr",
        "wasi:cli/terminal-stdin",
        "wasi:cli/terminal-stdout",
        "wasi:clocks/monotonic-clock",
        "wasi:clocks/wall-clock",
        "wasi:filesystem/preopens",
        "wasi:filesystem/types",
        "wasi:http/outgoing-handler",
        "wasi:http/types",
        "wasi:io/error",
        "wasi:io/poll",
        "wasi:io/streams",
        "wasi:random/insecure",
        "wasi:random/insecure-seed",
        "wasi:random/random",
        "wasi:sockets/instance-network",
        "wasi:sockets/ip-name-lookup",
        "wasi:sockets/network",
        "wasi:sockets/tcp",
        "wasi:sockets/tcp-create-socket",
        "wasi:sockets/udp",
        "wasi:sockets/udp-create-socket",
    }
)
"""Those with functions; wasi:sockets answers that access is denied."""


def is_hosted(name: str, version: str) -> bool:
    """Of any patch version."""
    return name in HOSTED and is_of_version(version)


def is_of_version(version: str) -> bool:
    """Whether it is some 0.2.x."""
    return version.startswith(f"{VERSION}.")
