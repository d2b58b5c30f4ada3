"""WASI 0.2 for components: functions by interface and name, whatever the patch version, on values as they are lifted.

    registry    FUNCTIONS, and how a function says that its guest must wait
    host        what one instance may see
    streams     input and output streams, pollables
    io, clocks, random, cli, filesystem, sockets, http_*    the interfaces

The values are those of `canonical`; both hosts of components use the same functions.
"""

from wasmpool_agent.wasi.p2 import (
    cli,
    clocks,
    filesystem,
    http_fields,
    http_outgoing,
    http_types,
    io,
    random,
    sockets,
)
from wasmpool_agent.wasi.p2.host import Host
from wasmpool_agent.wasi.p2.registry import FUNCTIONS, Function, Later

INTERFACES = (cli, clocks, filesystem, http_fields, http_outgoing, http_types, io, random, sockets)
"""Whose functions are registered when they are imported."""

__all__ = ["FUNCTIONS", "INTERFACES", "Function", "Host", "Later"]
