"""Mutates modules and inspects them: the answer is an Inspection or ModuleInvalid, soon, and never against Wasmtime's.

    python -m tests.fuzz.wasm_inspection --mutants 1000000 --seed 7

Three things are held for each mutant: nothing but ModuleInvalid is raised, and its offset lies within the file; what
Wasmtime takes as valid, with every proposal switched on, is not refused; and no mutant takes long for its size.
"""

import argparse
import random
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import wasmtime

from tests.fuzz.wasm_corpus import all_features, binaries
from wasmpool_api.wasm import ModuleInvalid, inspect

INTERESTING = (0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 0x3F, 0x40, 0x4E, 0x5E, 0x5F, 0x60, 0x63, 0x64, 0x70, 0x7F)
LIES = (
    b"\xff\xff\xff\xff\x0f",
    b"\x80\x80\x80\x80\x10",
    b"\xff\xff\xff\xff\x7f",
    b"\x80\x80\x80\x80\x80\x00",
    b"\x80\x80\x04",
)
LARGEST_FOR_SPLICING = 4096
SECONDS_ALLOWED = 2.0


@dataclass
class Outcome:
    """`refused`: by problem, without its numbers."""

    mutants: int = 0
    accepted: int = 0
    valid: int = 0
    slowest_seconds: float = 0.0
    refused: Counter[str] = field(default_factory=Counter[str])


def mutate(chance: random.Random, corpus: Sequence[bytes]) -> bytes:
    """A module of the corpus with one to four things wrong; most of them near its beginning, where the structure is."""
    mutant = bytearray(chance.choice(corpus))
    for _ in range(chance.choice((1, 1, 1, 2, 4))):
        if len(mutant) < 9:
            break
        at = (
            min(8 + int(chance.expovariate(1 / 60)), len(mutant) - 1)
            if chance.random() < 0.8
            else chance.randrange(len(mutant))
        )
        match chance.randrange(9):
            case 0:
                mutant[at] = chance.choice(INTERESTING)
            case 1:
                mutant[at] ^= 1 << chance.randrange(8)
            case 2:
                mutant[at] = (mutant[at] + chance.choice((-1, 1))) % 256
            case 3:
                del mutant[at:]
            case 4:
                del mutant[at : at + chance.randrange(1, 9)]
            case 5:
                mutant[at:at] = chance.randbytes(chance.randrange(1, 9))
            case 6:
                mutant[at : at + 1] = chance.choice(LIES)
            case 7:
                start = chance.randrange(8, len(mutant))
                mutant[at:at] = mutant[start : start + chance.randrange(1, 40)]
            case _:
                other = chance.choice(corpus)
                if len(other) <= LARGEST_FOR_SPLICING:
                    mutant[at:] = other[min(at, len(other)) :]
    return bytes(mutant)


def run(mutants: int, seed: int, *, against_wasmtime: float = 1.0) -> Outcome:
    """Raises AssertionError with the mutant in hex. `against_wasmtime`: the part that is also given to Wasmtime."""
    chance = random.Random(seed)  # noqa: S311 - it has to be repeatable
    corpus = tuple(binaries().values())
    engine = wasmtime.Engine(all_features())
    outcome = Outcome()
    for _ in range(mutants):
        mutant = mutate(chance, corpus)
        began = time.perf_counter()
        error = refusal(mutant)
        took = time.perf_counter() - began
        assert took < SECONDS_ALLOWED, f"{took:.1f} s for {len(mutant)} bytes: {mutant.hex()}"
        if error is not None:
            assert 0 <= error.offset <= len(mutant), f"{error}: {mutant.hex()}"
            outcome.refused["".join(letter for letter in error.problem if not letter.isdigit())[:40]] += 1
        outcome.slowest_seconds = max(outcome.slowest_seconds, took)
        outcome.mutants += 1
        outcome.accepted += error is None
        if chance.random() < against_wasmtime and is_valid(engine, mutant):
            outcome.valid += 1
            assert error is None, f"Wasmtime takes it, we say {error}: {mutant.hex()}"
    return outcome


def refusal(module: bytes) -> ModuleInvalid | None:
    """Why it is not inspected; any other exception is a bug."""
    try:
        inspect(module)
    except ModuleInvalid as error:
        return error
    return None


def is_valid(engine: wasmtime.Engine, module: bytes) -> bool:
    """Whether Wasmtime takes it, without compiling it."""
    try:
        wasmtime.Module.validate(engine, module)
    except wasmtime.WasmtimeError:
        return False
    return True


def main() -> None:
    """The long run, by hand."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mutants", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=7)
    chosen = parser.parse_args()
    began = time.perf_counter()
    outcome = run(chosen.mutants, chosen.seed)
    took = time.perf_counter() - began
    print(
        f"{outcome.mutants} mutants in {took:.0f} s: {outcome.accepted} inspected, of which Wasmtime takes "
        f"{outcome.valid}; the slowest took {outcome.slowest_seconds * 1000:.1f} ms"
    )
    for problem, count in outcome.refused.most_common(30):
        print(f"{count:8}  {problem}")


if __name__ == "__main__":
    main()
