"""Which slots are promised: what the spec says, what an earlier spec said that the agent may still act on, and what
the agent still holds. And that nothing is assumed where nothing can be known.
"""

from tests.unit.operator.builders import agent_info, pool_node
from wasmpool_api.instance_pool_node import Assignment
from wasmpool_api.placement import Claim
from wasmpool_operator.promises import Ledger


def assignment(uid: str, slots: int) -> Assignment:
    return Assignment(uid=uid, namespace="team", name=uid, revision="r", slots=slots)


def told(generation: int, *workloads: tuple[str, int]) -> dict[str, object]:
    entries = [{"uid": uid, "revision": "r", "state": "Running", "reservedSlots": slots} for uid, slots in workloads]
    return {"observedGeneration": generation, "agent": agent_info(), "workloads": entries}


def test_what_is_in_the_spec_is_promised() -> None:
    node = pool_node(generation=2, assignments=(assignment("a", 3),), status=told(2))
    assert Ledger().promised(node) == {Claim("a", "r"): 3}


def test_what_the_agent_still_holds_is_promised_although_the_spec_has_dropped_it() -> None:
    node = pool_node(generation=2, status=told(2, ("a", 3)))
    assert Ledger().promised(node) == {Claim("a", "r"): 3}


def test_a_removal_that_the_agent_has_not_confirmed_frees_nothing() -> None:
    ledger = Ledger()
    ledger.observe(pool_node(generation=2, assignments=(assignment("a", 3),), status=told(1)))
    dropped = pool_node(generation=3, status=told(1))
    ledger.observe(pool_node(generation=1))
    ledger.observe(dropped)
    assert ledger.promised(dropped) == {Claim("a", "r"): 3}
    confirmed = pool_node(generation=3, status=told(3))
    ledger.observe(confirmed)
    assert ledger.promised(confirmed) == {}


def test_the_confirmed_spec_counts_while_a_newer_one_is_on_its_way() -> None:
    ledger = Ledger()
    ledger.observe(pool_node(generation=2, assignments=(assignment("a", 3),), status=told(2)))
    dropped = pool_node(generation=3, status=told(2))
    assert ledger.promised(dropped) == {Claim("a", "r"): 3}


def test_an_unconfirmed_history_that_nobody_remembers_is_not_guessed() -> None:
    assert Ledger().promised(pool_node(generation=3, status=told(1))) is None
