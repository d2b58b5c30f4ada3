"""The WebAssembly spec test-suite through every allocator: nothing differs from on-demand.

Covers: each script of the standard and of the proposals, in a pool of each allocator, command by command; what
on-demand itself passes, which is all but the commands that not_passed.toml lists by proposal; slots and bytes left
behind.

The four pools live as long as this file's tests: a script's memories lie where earlier scripts' memories lay. The suite
is a Rust crate that cargo fetches, once. Without cargo these tests are skipped, but not where CI is "true".
"""

import os
from collections.abc import Generator, Mapping
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.conformance import not_passed
from tests.conformance.not_passed import NotPassed
from tests.conformance.pools import BASELINE, FEW_PAGES, OTHERS, SIZES, Pool, open_pool
from tests.conformance.running import run_script
from tests.conformance.scripts import Step, steps
from tests.conformance.testsuite import NoCargoError, fetch, names, script
from wasmpool_agent.allocators import AllocatorKind
from wasmpool_agent.allocators.region_slots import RegionSlots
from wasmpool_api.limits import WASM_PAGE_BYTES

Pools = Mapping[AllocatorKind, Pool]


@pytest.fixture(scope="module")
def suite() -> Path:
    """Where the scripts are. Any other reason not to have them than a missing cargo is an error."""
    try:
        return fetch()
    except NoCargoError as error:
        if os.environ.get("CI") == "true":
            raise
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def pools(suite: Path) -> Generator[Pools]:
    """One of each allocator. At their end all slots must be free, and the regions without a byte."""
    assert suite.is_dir()
    with ExitStack() as stack:
        yield {kind: stack.enter_context(open_pool(kind, SIZES)) for kind in (BASELINE, *OTHERS)}


def differences(
    name: str, script_steps: list[Step], baseline: list[str], kind: AllocatorKind, outcomes: list[str]
) -> list[str]:
    """The commands whose outcomes are not those of on-demand."""
    return [
        f"{name}.wast:{step.line}: on-demand: {expected}; {kind.value}: {got}"
        for step, expected, got in zip(script_steps, baseline, outcomes, strict=True)
        if got != expected
    ]


@pytest.mark.parametrize("name", names())
def test_a_script_passes_but_for_what_is_listed_and_no_allocator_differs(name: str, pools: Pools) -> None:
    script_steps = list(steps(script(name)))
    assert script_steps
    baseline = run_script(pools[BASELINE], script_steps)
    assert NotPassed.of(script_steps, baseline) == not_passed.listed().get(name, NotPassed({}, {}))
    for kind in OTHERS:
        outcomes = run_script(pools[kind], script_steps)
        assert not (found := differences(name, script_steps, baseline, kind, outcomes)), "\n".join(found)
        assert pools[kind].table.counts().free == SIZES.slots


@pytest.mark.usefixtures("suite")
def test_memories_grow_the_same_where_two_of_their_pages_are_one_of_the_slots() -> None:
    """The region counts in more than ordinary pages: each second growth ends in a tail, and the next one moves it."""
    growing = [name for name in names() if b"memory.grow" in script(name).text]
    assert len(growing) > 50
    guarded = AllocatorKind.GUARDED
    with open_pool(BASELINE, FEW_PAGES) as one, open_pool(guarded, FEW_PAGES, 2 * WASM_PAGE_BYTES) as other:
        for name in growing:
            script_steps = list(steps(script(name)))
            baseline, outcomes = run_script(one, script_steps), run_script(other, script_steps)
            assert not (found := differences(name, script_steps, baseline, guarded, outcomes)), "\n".join(found)
        assert isinstance(other.allocator, RegionSlots)
        assert other.allocator.stats().grown > 50


def test_the_table_names_no_script_that_the_suite_does_not_have() -> None:
    assert set(not_passed.listed()) <= set(names())


def test_of_the_standards_own_scripts_nothing_is_superseded() -> None:
    superseded = {name for name, entry in not_passed.listed().items() if entry.superseded}
    assert superseded
    for name in superseded:
        proposal, _, title = name.partition("/")
        assert proposal != "wasm-latest"
        assert f"wasm-latest/{title}" in names()  # the copy that counts
