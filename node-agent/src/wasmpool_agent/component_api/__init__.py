"""Components through Wasmtime's own component API: for those that the host of the canonical ABI refuses.

The same programs, values and host functions as there; what differs is what it costs. Every value crosses in 32 bytes,
each byte of a list too, and imports are looked up again for each instance. Guests are suspended and ended just the
same, for here too everything that runs them is a future.

    program = Program.load(engine, compile_component(compiler_engine, component))
    instance = program.instance(store, host)
    instance.instantiate(placement)              # polled by the scheduler
    call = instance.call("wasi:cli/run@0.2.0", "run")
    ...
    call.result()
    instance.close()                             # then the store

Not possible here: resources of the component's own that cross the host, streams and futures. A list of more than about
2 MiB of bytes in one call traps: Wasmtime bounds what crosses by what it takes on the host's side, at 128 MiB.
"""

from wasmpool_agent.canonical.values import Unsupported
from wasmpool_agent.component_api.calls import Call, FunctionCall, Placement
from wasmpool_agent.component_api.program import Instance, Program, compile_component

__all__ = [
    "Call",
    "FunctionCall",
    "Instance",
    "Placement",
    "Program",
    "Unsupported",
    "compile_component",
]
