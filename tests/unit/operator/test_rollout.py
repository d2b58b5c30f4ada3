"""A new revision beside the old: never too many slots, never too few that answer, and an end.

Covers: the arithmetic alone, over any state that a workload may be found in; and whole roll-outs, with placement over
several nodes, agents that are slow, and instances that fail for a while.
"""

from collections.abc import Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wasmpool_api.placement import Claim, Node, Request, place
from wasmpool_api.quantities import IntOrPercent
from wasmpool_api.wasm_workload import RollingUpdate
from wasmpool_operator.workload.rollout import Allowance, Slots, allowance, shares

NODES = ("n1", "n2", "n3")
COUNTS = st.tuples(*(st.integers(0, 6) for _ in NODES))


@st.composite
def allowances(draw: st.DrawFn) -> Allowance:
    surge, unavailable = draw(st.integers(0, 5)), draw(st.integers(0, 5))
    return Allowance(draw(st.integers(0, 12)), surge, unavailable if surge or unavailable else 1)


def ready(held: Slots, running: Slots) -> int:
    return sum(
        min(slots, running.get(revision, {}).get(node, 0))
        for revision, nodes in held.items()
        for node, slots in nodes.items()
    )


def total(held: Slots) -> int:
    return sum(sum(nodes.values()) for nodes in held.values())


@settings(max_examples=1000)
@given(allowances(), st.lists(COUNTS, min_size=6, max_size=6))
def test_from_any_state_nothing_more_is_taken_and_nothing_needed_is_given_up(
    allowed: Allowance, counts: list[tuple[int, ...]]
) -> None:
    rows = [dict(zip(NODES, row, strict=True)) for row in counts]
    held = {
        revision: {node: slots for node, slots in row.items() if slots}
        for revision, row in zip(("new", "old", "older"), rows[:3], strict=True)
        if any(row.values())
    }
    running = {revision: rows[3 + at] for at, revision in enumerate(("new", "old", "older"))}
    wanted = shares(allowed, "new", "old", held, running)
    assert sum(wanted.values()) <= allowed.most
    before = total(held)
    older = sum(sum(nodes.values()) for revision, nodes in held.items() if revision != "new")
    assert wanted["new"] + older <= max(allowed.most, before), "the old ones may not have let go yet"
    assert all(wanted[revision] <= sum(held[revision].values()) for revision in held if revision != "new")
    was = ready(held, running)
    stays = sum(min(count, ready({it: held.get(it, {})}, running)) for it, count in wanted.items())
    assert stays >= min(was, allowed.least), "what runs is given up last"


@pytest.mark.parametrize(
    ("desired", "surge", "unavailable", "most", "least"),
    [(4, "25%", 0, 5, 4), (1, "25%", 0, 2, 1), (10, "25%", "25%", 13, 8), (3, 0, "10%", 3, 2), (0, "25%", 0, 0, 0)],
)
def test_percentages_are_rounded_as_in_a_deployment(
    desired: int, surge: str | int, unavailable: str | int, most: int, least: int
) -> None:
    strategy = RollingUpdate(max_surge=IntOrPercent.parse(surge), max_unavailable=IntOrPercent.parse(unavailable))
    found = allowance(desired, strategy)
    assert (found.most, found.least) == (most, least)


class World:
    """Nodes with eight slots each, and agents that do what they are told, some time."""

    def __init__(self, allowed: Allowance) -> None:
        self.allowed = allowed
        self.held: dict[str, dict[str, int]] = {}
        self.running: dict[str, dict[str, int]] = {}
        self.promised: dict[str, dict[Claim, int]] = {name: {} for name in NODES}

    def plan(self, target: str, current: str) -> None:
        """One reconcile; the specs are those of the plan after it."""
        wanted = shares(self.allowed, target, current, self.held, self.running)
        if not any(revision != target for revision in self.held):
            wanted = {target: self.allowed.desired}
        nodes = [Node(name, 8, 8, promised=dict(self.promised[name])) for name in NODES]
        requests = [
            Request(
                Claim("uid", revision), "team", "web", count,
                held=self.held.get(revision, {}), running=self.running.get(revision, {}),
            )
            for revision, count in wanted.items()
        ]  # fmt: skip
        found = place("pool", nodes, requests)
        before = ready(self.held, self.running)
        self.held = {claim.revision: dict(it.slots) for claim, it in found.items() if it.slots}
        assert total(self.held) <= self.allowed.most
        assert ready(self.held, self.running) >= min(before, self.allowed.least)
        for revision, nodes_of in self.held.items():
            for name, slots in nodes_of.items():
                claim = Claim("uid", revision)
                self.promised[name][claim] = max(self.promised[name].get(claim, 0), slots)
        assert all(sum(it.values()) <= 8 for it in self.promised.values())

    def obey(self, name: str, working: Mapping[str, bool]) -> None:
        """The agent of one node confirms its spec, and everything that works runs."""
        self.promised[name] = {}
        for revision in {*self.held, *self.running}:
            slots = self.held.get(revision, {}).get(name, 0)
            if slots:
                self.promised[name][Claim("uid", revision)] = slots
            self.running.setdefault(revision, {})[name] = slots if working.get(revision, True) else 0


@settings(max_examples=150, deadline=None)
@given(
    allowances().filter(lambda it: it.desired <= 8),
    st.lists(st.tuples(st.sampled_from(NODES), st.booleans(), st.booleans()), max_size=25),
)
def test_a_roll_out_keeps_within_its_bounds_and_comes_to_its_end(
    allowed: Allowance, turns: list[tuple[str, bool, bool]]
) -> None:
    world = World(allowed)
    for _ in range(3):
        world.plan("old", "old")
        for name in NODES:
            world.obey(name, {})
    assert ready(world.held, world.running) == allowed.desired
    for name, old_works, new_works in turns:
        world.plan("new", "old")
        world.obey(name, {"old": old_works, "new": new_works})
    for _ in range(2 * allowed.desired + 3):
        for name in NODES:
            world.obey(name, {})
        world.plan("new", "old")
    assert {revision: sum(nodes.values()) for revision, nodes in world.held.items()} == (
        {"new": allowed.desired} if allowed.desired else {}
    )


@settings(max_examples=50, deadline=None)
@given(allowances().filter(lambda it: 0 < it.desired <= 8), st.integers(0, 6))
def test_a_version_that_never_runs_takes_no_more_than_its_allowance_from_one_that_does(
    allowed: Allowance, back_after: int
) -> None:
    world = World(allowed)
    for _ in range(3):
        world.plan("old", "old")
        for name in NODES:
            world.obey(name, {})
    for _ in range(back_after):
        world.plan("broken", "old")
        for name in NODES:
            world.obey(name, {"broken": False})
        assert ready(world.held, world.running) >= allowed.least
    for _ in range(2 * allowed.desired + 3):
        world.plan("old", "old")
        for name in NODES:
            world.obey(name, {"broken": False})
        assert ready(world.held, world.running) >= allowed.least
    assert {revision: sum(nodes.values()) for revision, nodes in world.held.items()} == {"old": allowed.desired}
