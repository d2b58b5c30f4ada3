"""The life of an instance in every allocator: instantiate, dirty so many bytes, drop; first touches; loops.

    .venv/bin/python -m tests.bench.allocators [--quick] [--json FILE] [--svg FILE] [CASE ...]

What a life costs when everything else is ready: the module is compiled, the region is reserved. A case's name says
how many bytes its guest writes into its memory of 2 MiB (10 MiB for the last), from its start function, so that no call
from Python is in the figure; `no-memory` is what no allocator can change: store and instance, by way of Python.
`wasmtime-pool` is Wasmtime's pooling allocator as it comes; `wasmtime-pool-resident` keeps as much as a slot holds: the
honest baseline. Our subjects pay for their slot table too; the others have none.
Compact and guarded slots need huge pages, as root: `echo 96 > /proc/sys/vm/nr_hugepages`; without they are left out.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

from demo.host import huge_pages
from tests.bench.plot import draw
from tests.bench.report import Report
from tests.bench.subjects import IN_REGION, SUBJECTS, WARM_UP, Crew, Order, Sizes, crew

T = TypeVar("T")
KIB: Final = 1024
MIB: Final = 1024 * KIB
LIVES: Final = Sizes(slots=4, memory_pages=160)
WIDE: Final = Sizes(slots=1, memory_pages=256 * MIB // (64 * KIB))
BASELINES: Final = ("wasmtime-pool", "wasmtime-pool-resident", "on-demand")
MICROSECONDS: Final = "us per life"
CALLS: Final = "ms per call"


@dataclass(frozen=True)
class Dirty:
    """A case of lives. `written`: bytes, of a memory of `pages`."""

    name: str
    written: int
    pages: int

    @property
    def wat(self) -> str:
        """Its guest."""
        memory = f'(memory (export "memory") {self.pages})' if self.pages else ""
        start = f"(start $f) (func $f (memory.fill (i32.const 0) (i32.const 1) (i32.const {self.written})))"
        return f"(module {memory} {start if self.written else ''})"


LIFE_CASES: Final = (
    Dirty("no-memory", 0, 0),
    Dirty("instantiate-drop", 0, 1),
    Dirty("dirty-64KiB", 64 * KIB, 32),
    Dirty("dirty-512KiB", 512 * KIB, 32),
    Dirty("dirty-2MiB", 2 * MIB, 32),
    Dirty("dirty-10MiB", 10 * MIB, 160),
)
MANNERS: Final = (("1 thread", 1, 1), ("2 threads", 2, 1), ("2 processes", 1, 2))

LOOP: Final = """(module (memory 16) (func (export "run") (local i32 i32 i64)
  (loop (local.set 1 (i32.const 0))
   (loop (local.set 2 (i64.add (local.get 2) (i64.load (local.get 1))))
         (i64.store (local.get 1) (i64.add (local.get 2) (i64.load offset=8 (local.get 1))))
         (local.set 1 (i32.add (local.get 1) (i32.const 16)))
         (br_if 0 (i32.lt_u (local.get 1) (i32.const 1048576))))
   (local.set 0 (i32.add (local.get 0) (i32.const 1)))
   (br_if 0 (i32.lt_u (local.get 0) (i32.const 20))))))"""
RANDOM: Final = """(module (memory 4096) (func (export "run") (local i32 i32 i64)
  (loop (local.set 1 (i32.add (i32.mul (local.get 1) (i32.const 1664525)) (i32.const 1013904223)))
        (local.set 2 (i64.add (local.get 2)
          (i64.load (i32.and (i32.shr_u (local.get 1) (i32.const 4)) (i32.const 0x0ffffff8)))))
        (local.set 0 (i32.add (local.get 0) (i32.const 1)))
        (br_if 0 (i32.lt_u (local.get 0) (i32.const 1000000)))))
  (start $touch) (func $touch (memory.fill (i32.const 0) (i32.const 1) (i32.const 0x10000000))))"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints tables; exit code 0."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", metavar="CASE", help="these only; all without one")
    parser.add_argument("--quick", action="store_true", help="few rounds of few lives: shows that it runs, no more")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--svg", type=Path, help="draw the ratios into this file")
    options = parser.parse_args(arguments)
    known = [case.name for case in LIFE_CASES] + ["first-touch-2MiB", "loop-1MiB", "random-256MiB"]
    wanted: list[str] = options.cases or known
    unknown = set(wanted) - set(known)
    if unknown:
        parser.error(f"CASE {', '.join(sorted(unknown))}: there is no such case; there are {', '.join(known)}")
    report = Report()
    rounds = 3 if options.quick else 15
    _lives(report, [case for case in LIFE_CASES if case.name in wanted], rounds, quick=options.quick)
    if "first-touch-2MiB" in wanted:
        _first_touch(report, rounds)
    if "loop-1MiB" in wanted:
        _calls(report, "loop-1MiB", LOOP, LIVES, rounds)
    if "random-256MiB" in wanted:
        _calls(report, "random-256MiB", RANDOM, WIDE, rounds)
    print(report.table(MICROSECONDS, BASELINES))
    print(report.table(CALLS, BASELINES))
    print(report.table("faults per life", ()))
    print(report.table("mappings", ()))
    if options.json:
        report.write(options.json)
    if options.svg:
        draw(report, MICROSECONDS, "wasmtime-pool-resident", options.svg)
    return 0


def _subjects(sizes: Sizes) -> Iterator[str]:
    """Those that this machine has the huge pages for, all at the same time."""
    free = huge_pages().free
    for name in SUBJECTS:
        if name in IN_REGION:
            if free < sizes.huge_pages:
                print(
                    f"{name} is left out: {sizes.huge_pages} free huge pages are wanted, there are {free}",
                    file=sys.stderr,
                )
                continue
            free -= sizes.huge_pages
        yield name


def _lives(report: Report, cases: Sequence[Dirty], rounds: int, *, quick: bool) -> None:
    with ExitStack() as stack:
        crews = [
            stack.enter_context(crew(name, LIVES, processes=2)) for name in list(_subjects(LIVES) if cases else ())
        ]
        for case in cases:
            cycles = (20 if quick else 200) if case.written > 64 * KIB else (50 if quick else 1000)
            for manner, threads, processes in MANNERS:
                order = Order(case.wat, cycles, threads)
                _rounds(report, f"{case.name}, {manner}", crews, order, processes, rounds)


def _rounds(report: Report, case: str, crews: Sequence[Crew], order: Order, processes: int, rounds: int) -> None:
    for one in crews:
        one.measure(Order(order.wat, WARM_UP, order.threads), processes)
    taken: dict[str, list[float]] = {one.name: [] for one in crews}
    faults: dict[str, list[float]] = {one.name: [] for one in crews}
    mappings: dict[str, list[float]] = {one.name: [] for one in crews}
    for turn in range(rounds):
        for one in _in_turn(crews, turn):
            answers = one.measure(order, processes)
            taken[one.name].append(sum(it.seconds for it in answers) / len(answers) / processes * 1e6)
            faults[one.name].append(max(it.faults for it in answers))
            mappings[one.name].append(max(it.mappings for it in answers))
    for unit, figures in ((MICROSECONDS, taken), ("faults per life", faults), ("mappings", mappings)):
        for name, runs in figures.items():
            report.add(case, name, unit, runs)


def _first_touch(report: Report, rounds: int) -> None:
    """The first life in a region, or a pool, that is new: each figure is of processes that were made for it."""
    case = next(case for case in LIFE_CASES if case.name == "dirty-2MiB")
    one_slot = Sizes(slots=1, memory_pages=32)
    names = list(_subjects(one_slot))
    taken: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(rounds):
        for name in _in_turn(names, turn):
            with crew(name, one_slot) as made:
                # Loads the engine's code; it touches nothing of the memory.
                made.measure(Order("(module)", 1))
                (answer,) = made.measure(Order(case.wat, 1))
                taken[name].append(answer.seconds * 1e6)
    for name, runs in taken.items():
        report.add("first-touch-2MiB", name, MICROSECONDS, runs)


def _calls(report: Report, case: str, wat: str, sizes: Sizes, rounds: int) -> None:
    with ExitStack() as stack:
        crews = [stack.enter_context(crew(name, sizes)) for name in list(_subjects(sizes))]
        taken: dict[str, list[float]] = {one.name: [] for one in crews}
        for turn in range(rounds):
            for one in _in_turn(crews, turn):
                (answer,) = one.measure(Order(wat, 5, call="run"))
                taken[one.name].append(answer.seconds * 1e3)
    for name, runs in taken.items():
        report.add(case, name, CALLS, runs)


def _in_turn(subjects: Sequence[T], turn: int) -> Sequence[T]:
    """Each round begins with another subject, so that none always follows the same one."""
    first = turn % len(subjects)
    return [*subjects[first:], *subjects[:first]]


if __name__ == "__main__":
    raise SystemExit(main())
