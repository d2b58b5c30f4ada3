"""`python -m tests.fuzz.canonical_plans FILE... --seconds N`: changed components, linked and loaded as far as they go.

What may come out is a plan or a reason (ModuleInvalid, Unsupported, or an error of the compiler); anything else is
printed with the seed that makes it again, and the status is 1.
"""

import argparse
import random
import sys
import time
from pathlib import Path

import wasmtime

from wasmpool_agent.canonical import Program, Unsupported
from wasmpool_agent.canonical.compiling import link_component
from wasmpool_agent.canonical.linked import encode
from wasmpool_agent.engine import DEFAULT_TUNABLES, _config
from wasmpool_api.wasm import ModuleInvalid

_SMALL_BYTES = 200_000
"""Of these the core modules are compiled too."""


def changed(data: bytes, seed: int) -> bytes:
    """Some bytes set, moved or left out, most of them where the wiring is: at the beginning and at the end."""
    chance = random.Random(seed)  # noqa: S311 - reproducible, not secret
    made = bytearray(data)
    for _ in range(chance.randint(1, 6)):
        edge = min(len(made), 6000)
        at = chance.choice([chance.randrange(8, edge), len(made) - chance.randrange(1, edge)])
        match chance.randrange(4):
            case 0:
                made[at] = chance.choice([0, 1, 2, 0x7F, 0x80, 0xFF])
            case 1:
                made[at] ^= 1 << chance.randrange(8)
            case 2:
                made[at : at + chance.randrange(1, 4)] = b""
            case _:
                made[at:at] = made[at : at + chance.randrange(1, 12)]
    return bytes(made)


def try_one(engine: wasmtime.Engine, data: bytes) -> str:
    """How it went."""
    try:
        linked, modules = link_component(data, frozenset())
        if len(data) > _SMALL_BYTES:
            return "linked"
        compiled = [wasmtime.Module(engine, module) for module in modules]
        Program.load(engine, encode(linked), compiled, {})
    except (ModuleInvalid, Unsupported, wasmtime.WasmtimeError) as error:
        return type(error).__name__
    return "loaded"


def main() -> int:
    """0 where nothing unexpected was found."""
    parser = argparse.ArgumentParser()
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parsed = parser.parse_args()
    engine = wasmtime.Engine(_config(DEFAULT_TUNABLES))
    samples = [file.read_bytes() for file in parsed.files]
    counts: dict[str, int] = {}
    failed = 0
    end = time.monotonic() + parsed.seconds
    seed = parsed.seed
    while time.monotonic() < end:
        data = changed(samples[seed % len(samples)], seed)
        try:
            outcome = try_one(engine, data)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is what we look for
            outcome = "UNEXPECTED"
            failed += 1
            sys.stdout.write(f"seed {seed}: {error!r}\n")
        counts[outcome] = counts.get(outcome, 0) + 1
        seed += 1
    sys.stdout.write(f"{counts}\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
