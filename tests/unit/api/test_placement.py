"""Placement of workloads on the nodes of a pool.

We test these aspects:

* examples: Spread and Pack, selectors, maxPerNode, minInstances, priority and age, shares, draining and lost nodes,
  what waits and why, what never fits, and that a large one neither blocks the others for ever nor starves;
* properties over random pools, with one function that states them all: no slot is promised twice, nothing moves
  without a need, the order of the arguments does not matter, and who gets less than wanted is told why, with numbers.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wasmpool_api.placement import (
    PATIENCE_SECONDS,
    Claim,
    NamespaceLimit,
    Node,
    NodeState,
    Placement,
    Request,
    Shortfall,
    place,
)
from wasmpool_api.reasons import Refusal, Waiting
from wasmpool_api.wasm_workload import Spread


def node(name: str, slots: int = 4, **fields: object) -> Node:
    return replace(Node(name, slots, capacity=slots), **fields)  # type: ignore[arg-type]


def request(uid: str, wanted: int, **fields: object) -> Request:
    return replace(Request(Claim(uid, "r1"), "team", uid, wanted), **fields)  # type: ignore[arg-type]


def placed(result: Mapping[Claim, Placement], uid: str, revision: str = "r1") -> dict[str, int]:
    return dict(result[Claim(uid, revision)].slots)


def shortfall(result: Mapping[Claim, Placement], uid: str) -> Shortfall:
    found = result[Claim(uid, "r1")].shortfall
    assert found is not None
    return found


# --- where ---------------------------------------------------------------------------------------------------------


def test_spread_puts_slots_evenly_over_the_nodes() -> None:
    result = place("web", [node("a"), node("b"), node("c")], [request("w", 5)])
    assert sorted(placed(result, "w").values()) == [1, 2, 2]


def test_spread_prefers_the_emptier_of_two_nodes() -> None:
    other = Claim("x", "r1")
    result = place("web", [node("a", promised={other: 3}), node("b")], [request("w", 1)])
    assert placed(result, "w") == {"b": 1}


def test_pack_fills_the_fullest_node_first() -> None:
    other = Claim("x", "r1")
    nodes = [node("a"), node("b", promised={other: 2}), node("c")]
    result = place("web", nodes, [request("w", 3, spread=Spread.PACK)])
    assert placed(result, "w") == {"b": 2, "a": 1}


def test_a_node_selector_is_obeyed() -> None:
    nodes = [node("a", labels={"zone": "1"}), node("b", labels={"zone": "2"})]
    result = place("web", nodes, [request("w", 2, node_selector={"zone": "2"})])
    assert placed(result, "w") == {"b": 2}


def test_max_per_node_is_obeyed() -> None:
    result = place("web", [node("a"), node("b")], [request("w", 2, max_per_node=1)])
    assert placed(result, "w") == {"a": 1, "b": 1}


def test_a_node_that_refuses_it_or_is_too_small_for_it_keeps_and_gets_nothing() -> None:
    held = {"a": 1, "b": 1, "c": 1}
    nodes = [node(name, promised={Claim("w", "r1"): 1}) for name in "abc"]
    asked = request("w", 3, held=held, refusing=frozenset("a"), too_small=frozenset("b"))
    assert placed(place("web", nodes, [asked]), "w") == {"c": 3}


def test_what_refuses_can_never_hold_it_and_what_is_too_small_can_not_now() -> None:
    nodes = [node("a"), node("b")]
    never = shortfall(place("web", nodes, [request("w", 5, refusing=frozenset("a"))]), "w")
    assert never.reason is Refusal.EXCEEDS_POOL_CAPACITY
    assert "1 node of pool web that does not refuse it can hold 4 for it" in never.message
    later = shortfall(place("web", nodes, [request("w", 5, too_small=frozenset("a"))]), "w")
    assert later.reason is Waiting.WAITING_FOR_CAPACITY
    assert "the slots of 1 node are too small for it, until the agents there are replaced" in later.message


def test_what_is_held_stays_where_it_is() -> None:
    held = {"b": 2}
    nodes = [node("a"), node("b", promised={Claim("w", "r1"): 2}), node("c")]
    assert placed(place("web", nodes, [request("w", 2, held=held)]), "w") == held


def test_a_smaller_wish_takes_from_the_fullest_node_when_spread() -> None:
    held = {"a": 3, "b": 1}
    nodes = [node("a", promised={Claim("w", "r1"): 3}), node("b", promised={Claim("w", "r1"): 1})]
    assert placed(place("web", nodes, [request("w", 2, held=held)]), "w") == {"a": 1, "b": 1}


def test_a_smaller_wish_takes_from_nodes_that_do_not_work_first() -> None:
    held = {"a": 1, "b": 2}
    nodes = [node("a", state=NodeState.UNREADY), node("b", promised={Claim("w", "r1"): 2})]
    assert placed(place("web", nodes, [request("w", 2, held=held)]), "w") == {"b": 2}


# --- promised once -------------------------------------------------------------------------------------------------


def test_slots_of_a_removed_assignment_are_not_given_out_before_the_agent_let_go() -> None:
    gone = Claim("old", "r1")
    result = place("web", [node("a", 4, promised={gone: 3})], [request("w", 2, minimum=1)])
    assert placed(result, "w") == {"a": 1}
    assert shortfall(result, "w").reason is Waiting.WAITING_FOR_CAPACITY


def test_a_node_whose_promises_are_not_known_takes_nothing_new_but_keeps_what_it_has() -> None:
    result = place("web", [node("a", promised=None)], [request("w", 2, held={"a": 1}), request("x", 1)])
    assert placed(result, "w") == {"a": 1}
    assert placed(result, "x") == {}


def test_a_claim_may_grow_back_into_slots_that_are_promised_to_itself() -> None:
    mine = Claim("w", "r1")
    result = place("web", [node("a", 4, promised={mine: 3})], [request("w", 4, held={"a": 1})])
    assert placed(result, "w") == {"a": 4}


def test_a_node_that_lost_slots_keeps_the_older_workload() -> None:
    promised = {Claim("old", "r1"): 2, Claim("new", "r1"): 2}
    requests = [
        request("new", 2, created="2026-02-01T00:00:00Z", held={"a": 2}),
        request("old", 2, created="2026-01-01T00:00:00Z", held={"a": 2}),
    ]
    result = place("web", [node("a", 3, promised=promised)], requests)
    assert (placed(result, "old"), placed(result, "new")) == ({"a": 2}, {"a": 1})


# --- who first -----------------------------------------------------------------------------------------------------


def test_a_higher_priority_is_served_first_and_then_age() -> None:
    requests = [
        request("young", 2, created="2026-03-01T00:00:00Z"),
        request("old", 2, created="2026-01-01T00:00:00Z"),
        request("urgent", 2, created="2026-04-01T00:00:00Z", priority=1),
    ]
    result = place("web", [node("a", 4)], requests)
    assert [placed(result, uid) for uid in ("urgent", "old", "young")] == [{"a": 2}, {"a": 2}, {}]


def test_a_higher_priority_takes_nothing_from_those_who_hold_slots() -> None:
    nodes = [node("a", 2, promised={Claim("w", "r1"): 2})]
    result = place("web", nodes, [request("w", 2, held={"a": 2}), request("urgent", 1, priority=9)])
    assert placed(result, "w") == {"a": 2}
    assert shortfall(result, "urgent").reason is Waiting.WAITING_FOR_CAPACITY


def test_nothing_is_placed_before_the_minimum_fits() -> None:
    result = place("web", [node("a", 4, promised={Claim("x", "r1"): 2})], [request("w", 3, minimum=3)])
    assert placed(result, "w") == {}
    found = shortfall(result, "w")
    assert (found.reason, found.wanted, found.placed, found.free) == (Waiting.WAITING_FOR_CAPACITY, 3, 0, 2)
    assert found.message == "3 more of 3 slots wanted, 2 free on 1 node of pool web, at least 3 must fit at once"


def test_more_than_the_minimum_is_placed_as_far_as_it_goes() -> None:
    result = place("web", [node("a", 4, promised={Claim("x", "r1"): 2})], [request("w", 3, minimum=2)])
    assert placed(result, "w") == {"a": 2}
    assert shortfall(result, "w").placed == 2


def test_a_large_one_that_waits_does_not_block_smaller_ones() -> None:
    nodes = [node("a", 8, promised={Claim("x", "r1"): 5})]
    result = place("web", nodes, [request("large", 6, minimum=6, priority=1), request("small", 2)])
    assert placed(result, "small") == {"a": 2}


def test_free_slots_are_kept_for_a_large_one_that_has_waited_long() -> None:
    nodes = [node("a", 8, promised={Claim("x", "r1"): 5})]
    large = request("large", 6, minimum=6, priority=1, waited_seconds=PATIENCE_SECONDS + 1)
    result = place("web", nodes, [large, request("small", 2)])
    assert placed(result, "small") == {}
    assert "free slots are kept for team/large" in shortfall(result, "small").message


def test_smaller_ones_get_a_turn_again_when_keeping_slots_free_did_not_help() -> None:
    nodes = [node("a", 8, promised={Claim("x", "r1"): 5})]
    large = request("large", 6, minimum=6, priority=1, waited_seconds=2 * PATIENCE_SECONDS + 1)
    assert placed(place("web", nodes, [large, request("small", 2)]), "small") == {"a": 2}


def test_what_can_never_fit_keeps_no_slots_from_others() -> None:
    large = request("large", 60, minimum=60, priority=1, waited_seconds=PATIENCE_SECONDS + 1)
    assert placed(place("web", [node("a", 8)], [large, request("small", 2)]), "small") == {"a": 2}


# --- never, not now, not for you -----------------------------------------------------------------------------------


def test_more_than_the_pool_can_ever_hold_is_permanent_and_says_so_with_numbers() -> None:
    result = place("web", [node("a", 4), node("b", 4, state=NodeState.UNREADY)], [request("w", 9, minimum=9)])
    found = shortfall(result, "w")
    assert found.reason is Refusal.EXCEEDS_POOL_CAPACITY
    assert found.message == "9 slots wanted, 2 nodes of pool web can hold 8 for it; 0 reserved"


def test_max_per_node_counts_in_what_the_pool_can_ever_hold() -> None:
    found = shortfall(place("web", [node("a")], [request("w", 2, minimum=2, max_per_node=1)]), "w")
    assert found.reason is Refusal.EXCEEDS_POOL_CAPACITY
    assert "can hold 1 for it, maxPerNode 1" in found.message


def test_without_a_node_or_without_a_ready_one_it_says_so() -> None:
    assert shortfall(place("web", [], [request("w", 1)]), "w").reason is Waiting.NO_READY_NODES
    unready = [node("a", state=NodeState.UNREADY)]
    found = shortfall(place("web", unready, [request("w", 1)]), "w")
    assert (found.reason, found.message) == (Waiting.NO_READY_NODES, "1 slot wanted, none of 1 node is ready")


def test_a_namespace_gets_no_more_than_its_share() -> None:
    limits = {"team": NamespaceLimit(3, "tenancy.maxShare 75% of 4 slots")}
    result = place("web", [node("a", 4)], [request("w", 2), request("x", 2)], limits)
    assert (placed(result, "w"), placed(result, "x")) == ({"a": 2}, {"a": 1})
    found = shortfall(result, "x")
    assert found.reason is Waiting.SHARE_EXCEEDED
    assert found.message == (
        "1 more of 2 slots wanted, namespace team holds 3 and may hold 3 (tenancy.maxShare 75% of 4 slots)"
    )


def test_a_share_that_shrinks_takes_nothing_from_those_who_hold_slots() -> None:
    limits = {"team": NamespaceLimit(1, "tenancy.maxShare 25% of 4 slots")}
    nodes = [node("a", 4, promised={Claim("w", "r1"): 3})]
    assert placed(place("web", nodes, [request("w", 3, held={"a": 3})], limits), "w") == {"a": 3}


# --- draining and lost ---------------------------------------------------------------------------------------------


def test_slots_on_a_draining_node_are_reserved_elsewhere_before_they_go() -> None:
    mine = Claim("w", "r1")
    nodes = [node("a", state=NodeState.DRAINING, promised={mine: 2}), node("b")]
    first = place("web", nodes, [request("w", 2, held={"a": 2}, running={"a": 2})])
    assert placed(first, "w") == {"a": 2, "b": 2}
    nodes = [node("a", state=NodeState.DRAINING, promised={mine: 2}), node("b", promised={mine: 2})]
    half = place("web", nodes, [request("w", 2, held={"a": 2, "b": 2}, running={"a": 2, "b": 1})])
    assert placed(half, "w") == {"a": 1, "b": 2}
    last = place("web", nodes, [request("w", 2, held={"a": 2, "b": 2}, running={"a": 2, "b": 2})])
    assert placed(last, "w") == {"b": 2}


def test_slots_stay_on_a_draining_node_while_there_is_no_room_elsewhere() -> None:
    nodes = [node("a", state=NodeState.DRAINING, promised={Claim("w", "r1"): 2})]
    result = place("web", nodes, [request("w", 2, held={"a": 2}, running={"a": 2})])
    assert placed(result, "w") == {"a": 2}
    assert result[Claim("w", "r1")].shortfall is None


def test_a_namespace_at_its_limit_can_leave_a_draining_node() -> None:
    limits = {"team": NamespaceLimit(2, "tenancy.quotas, everything")}
    nodes = [node("a", state=NodeState.DRAINING, promised={Claim("w", "r1"): 2}), node("b")]
    result = place("web", nodes, [request("w", 2, held={"a": 2}, running={"a": 2})], limits)
    assert placed(result, "w") == {"a": 2, "b": 2}


def test_what_ran_on_a_lost_node_is_placed_anew() -> None:
    nodes = [node("a", state=NodeState.LOST, promised={Claim("w", "r1"): 2}), node("b")]
    assert placed(place("web", nodes, [request("w", 2, held={"a": 2})]), "w") == {"b": 2}


def test_what_must_not_run_twice_stays_on_a_lost_node() -> None:
    nodes = [node("a", state=NodeState.LOST, promised={Claim("w", "r1"): 2}), node("b")]
    assert placed(place("web", nodes, [request("w", 2, held={"a": 2}, movable=False)]), "w") == {"a": 2}


# --- properties ----------------------------------------------------------------------------------------------------

NAMES = ("a", "b", "c", "d", "e")
REVISIONS = ("r1", "r2")


@st.composite
def pools(draw: st.DrawFn) -> tuple[list[Node], list[Request], dict[str, NamespaceLimit]]:
    """Pools as they can be: what is held is promised too, and what is promised may be more than there is."""
    names = NAMES[: draw(st.integers(0, len(NAMES)))]
    held: dict[Claim, dict[str, int]] = {}
    requests: list[Request] = []
    for number in range(draw(st.integers(0, 6))):
        claim = Claim(f"w{number // 2}", REVISIONS[number % 2])
        held[claim] = {name: draw(st.integers(1, 4)) for name in names if draw(st.booleans())}
        wanted = draw(st.integers(0, 12))
        requests.append(
            Request(
                claim,
                namespace=draw(st.sampled_from(("team", "other"))),
                name=claim.uid,
                wanted=wanted,
                minimum=draw(st.integers(1, 6)),
                priority=draw(st.integers(-1, 1)),
                created=draw(st.sampled_from(("2026-01-01T00:00:00Z", "2026-02-01T00:00:00Z"))),
                spread=draw(st.sampled_from(Spread)),
                node_selector=draw(st.sampled_from(({}, {"zone": "1"}))),
                max_per_node=draw(st.none() | st.integers(1, 4)),
                refusing=draw(st.frozensets(st.sampled_from(NAMES), max_size=2)),
                too_small=draw(st.frozensets(st.sampled_from(NAMES), max_size=2)),
                held=held[claim],
                running={name: draw(st.integers(0, count)) for name, count in held[claim].items()},
                movable=draw(st.booleans()),
                waited_seconds=draw(st.sampled_from((0.0, PATIENCE_SECONDS + 1, 2 * PATIENCE_SECONDS + 1))),
            )
        )
    nodes: list[Node] = []
    for name in names:
        promised = {claim: on[name] + draw(st.integers(0, 2)) for claim, on in held.items() if name in on}
        if draw(st.booleans()):
            promised[Claim("gone", "r1")] = draw(st.integers(1, 3))
        slots = draw(st.integers(0, 16))
        nodes.append(
            Node(
                name,
                slots,
                capacity=slots + draw(st.integers(0, 2)),
                state=draw(st.sampled_from(NodeState)),
                labels={"zone": draw(st.sampled_from(("1", "2")))},
                promised=promised if draw(st.integers(0, 4)) else None,
            )
        )
    limit = draw(st.none() | st.integers(0, 20))
    return nodes, requests, {} if limit is None else {"team": NamespaceLimit(limit, "tenancy.quotas, everything")}


def assert_placement_invariants(
    nodes: Sequence[Node],
    requests: Sequence[Request],
    limits: Mapping[str, NamespaceLimit],
    result: Mapping[Claim, Placement],
) -> None:
    """What holds for every placement; the messages give the case."""
    case = f"\n{nodes=}\n{requests=}\n{limits=}\n=> {result=}"
    assert result.keys() == {it.claim for it in requests}, case
    for each in nodes:
        promised = each.promised or {}
        for placement in result.values():
            assert placement.slots.get(each.name, 1) > 0, f"an entry of zero slots{case}"
        now = {it.claim: result[it.claim].slots.get(each.name, 0) for it in requests}
        grown = {
            it.claim for it in requests if now[it.claim] > max(promised.get(it.claim, 0), it.held.get(each.name, 0))
        }
        if grown:
            assert each.state is NodeState.READY, f"{each.name} can't grow{case}"
            assert each.promised is not None, f"the promises of {each.name} are not known{case}"
            total = sum(max(promised.get(claim, 0), now.get(claim, 0)) for claim in {*promised, *now})
            assert total <= each.slots, f"slots of {each.name} are promised twice{case}"
    for it in requests:
        placement = result[it.claim]
        for name, slots in placement.slots.items():
            where = next(each for each in nodes if each.name == name)
            new = slots > it.held.get(name, 0)
            if new or it.movable:
                assert name not in it.refusing | it.too_small, case
                assert all(where.labels.get(key) == value for key, value in it.node_selector.items()), case
                assert it.max_per_node is None or slots <= it.max_per_node or not new, case
        stable = sum(
            slots
            for name, slots in placement.slots.items()
            if not (it.movable and next(each.state for each in nodes if each.name == name) is NodeState.DRAINING)
        )
        assert stable <= it.wanted, f"more than wanted for {it.claim}{case}"
        if not any(it.held.values()) and placement.total:
            assert placement.total >= min(it.minimum, it.wanted), f"less than the minimum for {it.claim}{case}"
        short = placement.shortfall
        assert (short is None) == (placement.total >= it.wanted), f"{it.claim} is not told why{case}"
        if short is not None:
            assert (short.wanted, short.placed) == (it.wanted, placement.total), case
            assert any(character.isdigit() for character in short.message), f"no numbers in {short.message!r}{case}"
    for namespace, limit in limits.items():
        ours = [it for it in requests if it.namespace == namespace]
        grown_by = sum(
            max(0, slots - it.held.get(name, 0)) for it in ours for name, slots in result[it.claim].slots.items()
        )
        draining = {each.name for each in nodes if each.state is NodeState.DRAINING}
        settled = sum(
            slots
            for it in ours
            for name, slots in result[it.claim].slots.items()
            if not (it.movable and name in draining)
        )
        assert not grown_by or settled <= max(limit.slots, settled - grown_by), f"{namespace} has too much{case}"


@settings(max_examples=400, deadline=None)
@given(pools())
def test_every_placement_keeps_the_invariants(
    case: tuple[list[Node], list[Request], dict[str, NamespaceLimit]],
) -> None:
    nodes, requests, limits = case
    assert_placement_invariants(nodes, requests, limits, place("web", nodes, requests, limits))


@settings(max_examples=150, deadline=None)
@given(pools(), st.randoms(use_true_random=False))
def test_the_order_of_the_arguments_does_not_matter(
    case: tuple[list[Node], list[Request], dict[str, NamespaceLimit]], random: object
) -> None:
    nodes, requests, limits = case
    expected = place("web", nodes, requests, limits)
    shuffled_nodes, shuffled_requests = list(nodes), list(requests)
    random.shuffle(shuffled_nodes)  # type: ignore[attr-defined]
    random.shuffle(shuffled_requests)  # type: ignore[attr-defined]
    assert place("web", shuffled_nodes, shuffled_requests, limits) == expected


@settings(max_examples=150, deadline=None)
@given(pools())
def test_placing_again_what_was_placed_moves_nothing(
    case: tuple[list[Node], list[Request], dict[str, NamespaceLimit]],
) -> None:
    nodes, requests, limits = case
    first = place("web", nodes, requests, limits)
    settled_nodes = [
        replace(
            each,
            promised={
                claim: max(slots, (each.promised or {}).get(claim, 0))
                for claim in {*first, *(each.promised or {})}
                if (slots := first[claim].slots.get(each.name, 0) if claim in first else 0)
                or (each.promised or {}).get(claim, 0)
            }
            if each.promised is not None
            else None,
        )
        for each in nodes
    ]
    again = place("web", settled_nodes, [replace(it, held=first[it.claim].slots) for it in requests], limits)
    for it in requests:
        assert again[it.claim].slots == first[it.claim].slots


@pytest.mark.parametrize("spread", Spread)
def test_a_thousand_nodes_and_slots_are_placed_in_reasonable_time(spread: Spread) -> None:
    nodes = [node(f"n{number:04}", 256) for number in range(1000)]
    result = place("web", nodes, [request("w", 100_000, spread=spread)])
    assert result[Claim("w", "r1")].total == 100_000


def test_runs_that_may_follow_each_other_wait_for_slots_that_the_pool_will_never_have_at_once() -> None:
    nodes = [Node(name="n", slots=4, capacity=4)]
    fits = Request(claim=Claim("a", "r"), namespace="x", name="a", wanted=9, minimum=2, in_turns=True)
    too_many = replace(fits, minimum=5)
    placed = place("p", nodes, [fits], {})[fits.claim]
    assert placed.total == 4
    assert placed.shortfall is not None
    assert placed.shortfall.reason == Waiting.WAITING_FOR_CAPACITY
    refused = place("p", nodes, [too_many], {})[fits.claim]
    assert refused.shortfall is not None
    assert refused.shortfall.reason == Refusal.EXCEEDS_POOL_CAPACITY
