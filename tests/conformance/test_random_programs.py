"""Random programs do in every allocator what they do on demand: results, traps, and each byte that they leave.

A bounded run; `python -m tests.fuzz.differential` runs as many as wanted. The seeds are always the same.
"""

import re

import pytest

from tests.fuzz.differential import MEMORY_PAGES, OTHERS, DifferenceError, Outcome, Subject, all_pools, compare, run
from tests.fuzz.program_generator import program


def test_a_seed_always_gives_the_same_program_and_another_seed_another() -> None:
    texts = [program(seed, memory_pages=MEMORY_PAGES).text for seed in (1, 1, 2)]
    assert texts[0] == texts[1] != texts[2]


def test_random_programs_do_in_every_allocator_what_they_do_on_demand() -> None:
    outcome = run(range(400), seconds=20)
    assert outcome.programs >= 40
    assert outcome.grown > outcome.programs
    assert outcome.seen["result"] > outcome.calls // 2  # programs that trap at once would compare little
    assert outcome.seen["TrapCode.MEMORY_OUT_OF_BOUNDS"] > 0


@pytest.mark.parametrize("differing", OTHERS, ids=str)
def test_an_allocator_that_differs_is_found(differing: Subject) -> None:
    with all_pools(differing) as pools:

        def compare_all() -> None:
            for seed in range(0, 400, 2):
                compare(pools, (seed, seed + 1), Outcome())

        with pytest.raises(DifferenceError, match=re.escape(f", {differing}: ")):
            compare_all()
