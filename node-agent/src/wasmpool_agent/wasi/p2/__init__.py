"""WASI 0.2 for components: functions by interface and name, whatever the patch version, on values as they are lifted.

    registry    FUNCTIONS, and how a function says that its guest must wait
    host        what one instance may see
    streams     input and output streams, pollables
    io, clocks, random, cli, filesystem, sockets, http_*    the interfaces

The values are those of `canonical`; both hosts of components use the same functions.
"""

import wasmpool_agent.wasi.p2.cli
import wasmpool_agent.wasi.p2.clocks
import wasmpool_agent.wasi.p2.filesystem
import wasmpool_agent.wasi.p2.http_fields
import wasmpool_agent.wasi.p2.http_outgoing
import wasmpool_agent.wasi.p2.http_types
import wasmpool_agent.wasi.p2.io
import wasmpool_agent.wasi.p2.random
import wasmpool_agent.wasi.p2.sockets  # noqa: F401 - registers its functions
from wasmpool_agent.wasi.p2.host import Host
from wasmpool_agent.wasi.p2.registry import FUNCTIONS, Function, Later

__all__ = ["FUNCTIONS", "Function", "Host", "Later"]
