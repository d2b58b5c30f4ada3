"""Random programs in every allocator: equal results, equal traps, equal memories. By hand, for as long as wanted:

python -m tests.fuzz.differential --seconds 600 --seed 1000000
python -m tests.fuzz.differential --show 1000007         the program of one seed

Two programs run at a time, call by call in turn, so that each has a live neighbour; their slots are used again for the
next two, so that each has predecessors. On demand, all of them have memory of their own, and the module as it was
written; agents join data segments before they compile, so that is what the others get.
"""

import argparse
import hashlib
import time
from collections import Counter
from collections.abc import Generator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Final

import wasmtime

from tests.allocation import IN_REGION, Guest, Pool, open_pool
from tests.fuzz.program_code import FUEL, GLOBALS
from tests.fuzz.program_generator import Program, program
from wasmpool_agent.data_segments import join_data_segments
from wasmpool_api.limits import WASM_PAGE_BYTES

MEMORY_PAGES: Final = 70
"""Two huge pages and six wasm pages: growth ends inside of a huge page."""
TABLE_ELEMENTS: Final = 100
BASELINE: Final = "on-demand"


@dataclass(frozen=True)
class Subject:
    """An allocator, and whether the region counts in huge pages (over ordinary memory: no program can tell)."""

    kind: str
    page_bytes: int = 4096

    def __str__(self) -> str:
        return self.kind if self.page_bytes == 4096 else f"{self.kind}, 2Mi"


OTHERS: Final = (Subject("compact"), Subject("guarded"), Subject("guarded", 2 * 1024**2), Subject("base-pages"))


@dataclass
class Outcome:
    """Of a run so far. `seen`: how often calls ended in which way."""

    programs: int = 0
    calls: int = 0
    seen: Counter[str] = field(default_factory=Counter[str])
    grown: int = 0


class DifferenceError(Exception):
    """An allocator did not do what on-demand did."""


def start(pool: Pool, module: wasmtime.Module, workload: int) -> Guest | str:
    """A guest, or in which way it failed to start."""
    slot = pool.allocator.allocate(workload)
    store = pool.store()
    if pool.kind == BASELINE:  # the others' memories must stop growing by themselves
        store.set_limits(memory_size=MEMORY_PAGES * WASM_PAGE_BYTES, table_elements=TABLE_ELEMENTS)
    else:
        store.set_limits(table_elements=TABLE_ELEMENTS)
    try:
        with pool.allocator.initialize(slot):
            return Guest(pool, slot, store, wasmtime.Instance(store, module, []))
    except wasmtime.Trap as trap:
        store.close()
        pool.allocator.deallocate(slot)
        return f"start: {trap.trap_code}"


def called(guest: Guest, name: str, *arguments: int) -> str:
    """The result, or the trap."""
    try:
        return f"{guest.call(name, *arguments)}"
    except wasmtime.Trap as trap:
        return f"{trap.trap_code}"


def state_of(guest: Guest, memories: int) -> list[str]:
    """All that a guest can have changed, memories as hashes of all their bytes."""
    exports, found = guest.instance.exports(guest.store), list[str]()
    for index in range(memories):
        memory = exports[f"memory{index}"]
        assert isinstance(memory, wasmtime.Memory)
        content = memory.read(guest.store, 0, memory.data_len(guest.store))
        found.append(f"{len(content)} {hashlib.blake2b(content, digest_size=16).hexdigest()}")
    for index in range(GLOBALS):
        variable = exports[f"global{index}"]
        assert isinstance(variable, wasmtime.Global)
        found.append(f"{variable.value(guest.store)}")
    table = exports["table"]
    assert isinstance(table, wasmtime.Table)
    found.append("".join("01"[table.get(guest.store, index) is not None] for index in range(table.size(guest.store))))
    return found


def trace(pool: Pool, programs: Sequence[tuple[Program, wasmtime.Module]]) -> list[list[str]]:
    """What each of the programs did, call by call in turn, and what it left."""
    guests = [start(pool, module, number) for number, (_, module) in enumerate(programs, 1)]
    traces: list[list[str]] = [[guest] if isinstance(guest, str) else [] for guest in guests]
    for turn in range(max(len(each.calls) for each, _ in programs)):
        for (each, _), guest, told in zip(programs, guests, traces, strict=True):
            if isinstance(guest, Guest) and turn < len(each.calls):
                told.append(called(guest, *each.calls[turn]))
                guest.call("refuel", 0, 0)
    for (each, _), guest, told in zip(programs, guests, traces, strict=True):
        if isinstance(guest, Guest):
            told.extend(state_of(guest, each.memories))
            guest.close()
            if pool.kind in IN_REGION:
                pool.region.prove_clean(guest.slot.index)
    return traces


@contextmanager
def all_pools(differing: Subject | None = None) -> Generator[dict[Subject, Pool]]:
    """On demand first. `differing`: lets memories grow further than the others, to see that this is found."""
    subjects = (Subject(BASELINE), *OTHERS)
    with ExitStack() as stack:
        yield {
            subject: stack.enter_context(
                open_pool(
                    subject.kind,
                    memories=2,
                    memory_pages=MEMORY_PAGES + (30 if subject == differing else 0),
                    page_bytes=subject.page_bytes,
                    ordinary_memory=subject.page_bytes != 4096,
                )
            )
            for subject in subjects
        }


def compare(pools: dict[Subject, Pool], seeds: Sequence[int], outcome: Outcome) -> None:
    """Runs the programs of the seeds beside each other in all pools. Raises DifferenceError."""
    programs = [program(seed, memory_pages=MEMORY_PAGES) for seed in seeds]
    binaries = [bytes(wasmtime.wat2wasm(each.text)) for each in programs]
    expected: list[list[str]] | None = None
    for subject, pool in pools.items():
        sources = binaries if expected is None else [join_data_segments(binary) for binary in binaries]
        modules = [wasmtime.Module(pool.engine, source) for source in sources]
        traces = trace(pool, list(zip(programs, modules, strict=True)))
        if expected is None:
            expected = traces
        for seed, wanted, got in zip(seeds, expected, traces, strict=True):
            if got != wanted:
                raise DifferenceError(f"seeds {list(seeds)}, {subject}: {seed} did {got}, on-demand {wanted}")
    assert expected is not None
    outcome.programs += len(programs)
    for each, told in zip(programs, expected, strict=True):
        calls = told[: len(each.calls)]
        outcome.calls += len(calls)
        outcome.seen.update(result if not result.lstrip("-").isdigit() else "result" for result in calls)


def run(seeds: Sequence[int], seconds: float) -> Outcome:
    """Two seeds at a time, until they or the time is used up. Raises DifferenceError."""
    outcome, end = Outcome(), time.monotonic() + seconds
    with all_pools() as pools:
        for first, second in zip(seeds[::2], seeds[1::2], strict=False):
            compare(pools, (first, second), outcome)
            if time.monotonic() > end:
                break
        grown = [pool.in_region.stats().grown for pool in pools.values() if pool.kind in IN_REGION]
        if len(set(grown)) != 1:
            raise DifferenceError(f"memories grew {grown} times")
        outcome.grown = grown[0]
    return outcome


def main() -> None:
    """The long run, by hand."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--seed", type=int, default=1_000_000, help="the first of them")
    parser.add_argument("--show", type=int, metavar="SEED", help="print the program of a seed and its calls")
    chosen = parser.parse_args()
    if chosen.show is not None:
        shown = program(chosen.show, memory_pages=MEMORY_PAGES)
        print(shown.text, *shown.calls, sep="\n")
        return
    began = time.monotonic()
    outcome = run(range(chosen.seed, chosen.seed + 2**31), chosen.seconds)
    print(
        f"{outcome.programs} programs in {time.monotonic() - began:.0f} s, each in {len(OTHERS) + 1} pools: "
        f"{outcome.calls} calls with fuel {FUEL}, memories grown {outcome.grown} times, no difference"
    )
    for end, count in outcome.seen.most_common():
        print(f"{count:8}  {end}")


if __name__ == "__main__":
    main()
