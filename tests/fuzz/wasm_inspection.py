"""Mutates modules and components and inspects them: the answer is an Inspection or ModuleInvalid, soon.

    python -m tests.fuzz.wasm_inspection --mutants 1000000 --seed 7
    python -m tests.fuzz.wasm_inspection --mutants 1000000 --seed 7 --kind components

Held for each mutant: nothing but ModuleInvalid is raised, and its offset lies within the file; what Wasmtime takes as
valid, with every proposal switched on, is not refused; no mutant takes long for its size, nor much memory at all. Of
every component that Wasmtime takes, the core instances, memories and tables are those that Wasmtime counts in it.
"""

import argparse
import random
import resource
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import wasmtime
from wasmtime import component as wit

from tests.fuzz import component_oracle
from tests.fuzz.component_corpus import component_binaries
from tests.fuzz.section_trees import Tree, mutate_sections
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
BLIND = 0.3
"""The part of a component's mutants whose lengths are not made right again."""


@dataclass
class Outcome:
    """`refused`: by problem, without its numbers. `counted`: of the valid ones, those whose counts were compared."""

    mutants: int = 0
    counted: int = 0
    accepted: int = 0
    valid: int = 0
    slowest_seconds: float = 0.0
    refused: Counter[str] = field(default_factory=Counter[str])


def mutate(chance: random.Random, corpus: Sequence[bytes], near: float = 0.8) -> bytes:
    """One of the corpus with one to four things wrong. `near`: the part of them near the beginning.

    There is the structure of a module; that of a component is everywhere.
    """
    mutant = bytearray(chance.choice(corpus))
    for _ in range(chance.choice((1, 1, 1, 2, 4))):
        if len(mutant) < 9:
            break
        at = (
            min(8 + int(chance.expovariate(1 / 60)), len(mutant) - 1)
            if chance.random() < near
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


def run(mutants: int, seed: int) -> Outcome:
    """Of modules. Raises AssertionError with the mutant in hex."""
    engine = wasmtime.Engine(all_features())
    corpus = tuple(binaries().values())
    return _run(mutants, seed, lambda chance: mutate(chance, corpus), lambda mutant, _: is_valid(engine, mutant))


def run_components(mutants: int, seed: int) -> Outcome:
    """Of components, likewise; and what Wasmtime takes makes what we say it makes."""
    engine = wasmtime.Engine(component_oracle.everything())
    counter = component_oracle.Counter()

    def check(mutant: bytes, outcome: Outcome) -> bool:
        if not component_oracle.takes_component(engine, mutant):
            return False
        theirs = counter.makes(mutant)
        if theirs is not None and refusal(mutant) is None:
            ours = component_oracle.ours(mutant)
            outcome.counted += 1
            # Wasmtime adds core instances of its own where components call each other.
            assert ours[0] <= theirs[0], f"{ours}, Wasmtime {theirs}: {mutant.hex()}"
            assert ours[1:] == theirs[1:], f"{ours}, Wasmtime {theirs}: {mutant.hex()}"
        return True

    corpus = tuple(component_binaries().values())
    sections = [section for binary in corpus for tree in Tree.read(binary).trees() for section in tree.sections]

    def make(chance: random.Random) -> bytes:
        if chance.random() < BLIND:
            return mutate(chance, corpus, near=0.2)
        return mutate_sections(chance, chance.choice(corpus), sections)

    return _run(mutants, seed, make, check)


def _run(
    mutants: int, seed: int, make: Callable[[random.Random], bytes], check: Callable[[bytes, Outcome], bool]
) -> Outcome:
    """`make`: a mutant. `check`: whether Wasmtime takes it."""
    chance = random.Random(seed)  # noqa: S311 - it has to be repeatable
    outcome = Outcome()
    for _ in range(mutants):
        mutant = make(chance)
        began = time.thread_time()
        error = refusal(mutant)
        took = time.thread_time() - began
        assert took < SECONDS_ALLOWED, f"{took:.1f} s for {len(mutant)} bytes: {mutant.hex()}"
        if error is not None:
            assert 0 <= error.offset <= len(mutant), f"{error}: {mutant.hex()}"
            outcome.refused["".join(letter for letter in error.problem if not letter.isdigit())[:40]] += 1
        outcome.slowest_seconds = max(outcome.slowest_seconds, took)
        outcome.mutants += 1
        outcome.accepted += error is None
        if check(mutant, outcome):
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
    """Whether Wasmtime takes it; a core module without compiling it."""
    try:
        if module[4:8] == b"\x0d\0\1\0":
            wit.Component(engine, module)
        else:
            wasmtime.Module.validate(engine, module)
    except wasmtime.WasmtimeError:
        return False
    return True


def main() -> None:
    """The long run, by hand."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mutants", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--kind", choices=("modules", "components"), default="modules")
    chosen = parser.parse_args()
    began = time.thread_time()
    outcome = (run if chosen.kind == "modules" else run_components)(chosen.mutants, chosen.seed)
    took = time.thread_time() - began
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print(
        f"{outcome.mutants} mutants of {chosen.kind} in {took:.0f} s: {outcome.accepted} inspected, of which Wasmtime "
        f"takes {outcome.valid}; counts compared in {outcome.counted}; the slowest took "
        f"{outcome.slowest_seconds * 1000:.1f} ms; the process, with Wasmtime in it, had {most} MiB at most"
    )
    for problem, count in outcome.refused.most_common(30):
        print(f"{count:8}  {problem}")


if __name__ == "__main__":
    main()
