"""First act: the agent alone. No cluster, no root, no huge pages; the same code that runs in the pods."""

import json
import shlex
from typing import Final

from demo.console import Console, StepError

POOL: Final = "examples/standalone/pool.yaml"


def show(console: Console) -> None:
    """Checks one guest that fits and one that does not, then runs guests. Raises StepError where it is not so."""
    console.say("A pool's limits are judged without running anything. This guest fits:")
    fits = console.shell(f"wasmpool-agent check examples/build/hello.wasm --pool {POOL}")
    if "Admitted" not in fits:
        raise StepError(f"hello.wasm was to be admitted, `wasmpool-agent check` said:\n{fits}")
    console.say("This one does not, and every limit that it exceeds is named with both numbers:")
    refused = console.shell(f"wasmpool-agent check examples/build/too-big.wasm --pool {POOL}", expect=1)
    if "512" not in refused or "32" not in refused:
        raise StepError(f"too-big.wasm was to be refused with 512 wanted and 32 allowed, it said:\n{refused}")
    console.checked("admitted and refused by the pool's module limits, before anything ran")

    console.say("\nNow a pool of 8 slots on this machine, with the workloads of examples/, for 6 seconds:")
    command = f"timeout --preserve-status -s INT 6 wasmpool-agent run --pool {POOL} --workloads examples/"
    output = console.shell(command, timeout=60)
    _check_run(output)
    console.checked("a region was reserved, guests ran in its slots to their end, and too-big was refused")


def _check_run(output: str) -> None:
    messages: dict[str, list[str]] = {}
    for line in output.splitlines():
        if not line.startswith("{"):
            continue
        record = json.loads(line)
        if "workload" in record and "message" in record:
            messages.setdefault(record["workload"], []).append(record["message"])
    for workload, wanted in (("hello", "hello, wasmpool, from a slot"), ("mandelbrot", "####"), ("ticker", "tick 2")):
        if not any(wanted in message for message in messages.get(workload, [])):
            raise StepError(
                f"{shlex.quote(workload)} was to print {wanted!r}; it printed {messages.get(workload, [])[:5]}"
            )
    if "ExceedsModuleLimits" not in output:
        raise StepError("too-big was to be refused with ExceedsModuleLimits; the agent did not say so")
