"""First act: the agent alone. No cluster, no root, no huge pages; the same code that runs in the pods."""

import json
import shlex
from typing import Final

from demo.access import ROOT
from demo.console import Console, StepError

POOL: Final = "examples/standalone/pool.yaml"
LOG: Final = ROOT / ".out" / "demo" / "standalone.log"
SECONDS: Final = 8
"""Long enough to compile three guests while a build takes the machine."""


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

    console.say(f"\nNow a pool of 8 slots on this machine, with the workloads of examples/, for {SECONDS} seconds:")
    LOG.parent.mkdir(parents=True, exist_ok=True)
    log = LOG.relative_to(ROOT)
    run = f"wasmpool-agent run --pool {POOL} --workloads examples/"
    console.shell(f"timeout --preserve-status -s INT {SECONDS} {run} > {log}", timeout=60)
    _check_run(LOG.read_text())
    console.say("What became of each workload, and what two of them printed, as the agent logged it:")
    console.shell(f'grep -E \'"state":"(Succeeded|Running|Refused)"\' {log}')
    console.shell(f'grep \'"workload":"hello".*"stream"\' {log}')
    console.shell(guest_output("mandelbrot", f"cat {log}"))
    console.checked("a region was reserved, guests ran in its slots to their end, and too-big was refused")


def guest_output(workload: str, source: str) -> str:
    """A command that shows what a workload printed, from the JSON lines that `source` prints."""
    return f'{source} | sed -n \'/"stream"/s/.*"workload":"{workload}".*"message":"\\(.*\\)"}}/\\1/p\''


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
