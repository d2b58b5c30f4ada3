"""The second count of slots, on the node: which assignments are accepted.

Covers: order by priority; who is there keeps what it has; what a removed assignment still holds; and, for any numbers,
that no more is accepted than there is.
"""

from hypothesis import given
from hypothesis import strategies as st

from wasmpool_agent.supervisor.promises import ClaimKey, accept
from wasmpool_api.instance_pool_node import Assignment


def _assignment(name: str, slots: int, *, priority: int = 0, inspect: bool = False) -> Assignment:
    return Assignment(uid=name, namespace="n", name=name, revision="r", slots=slots, priority=priority, inspect=inspect)


def _key(name: str) -> ClaimKey:
    return ClaimKey(name, "r")


def test_what_fits_is_accepted_whole() -> None:
    assert accept([_assignment("a", 2), _assignment("b", 3)], 5, {}, {}) == {_key("a"): 2, _key("b"): 3}


def test_the_higher_priority_comes_first_where_it_does_not_fit() -> None:
    found = accept([_assignment("a", 3), _assignment("b", 3, priority=1)], 4, {}, {})
    assert found == {_key("a"): 1, _key("b"): 3}


def test_who_has_slots_keeps_them_whatever_the_priority_of_who_comes() -> None:
    found = accept([_assignment("a", 3), _assignment("b", 3, priority=9)], 4, {_key("a"): 3}, {_key("a"): 3})
    assert found == {_key("a"): 3, _key("b"): 1}


def test_instances_of_a_removed_assignment_hold_their_slots_until_they_end() -> None:
    assert accept([_assignment("a", 4)], 4, {}, {_key("gone"): 3}) == {_key("a"): 1}


def test_an_instance_that_is_being_stopped_after_a_scale_down_is_not_given_away() -> None:
    found = accept([_assignment("a", 1), _assignment("b", 4)], 4, {_key("a"): 3}, {_key("a"): 3})
    assert found == {_key("a"): 1, _key("b"): 1}


def test_an_inspection_takes_no_slot() -> None:
    assert accept([_assignment("a", 0, inspect=True)], 1, {}, {}) == {}


numbers = st.dictionaries(st.sampled_from("abcde"), st.integers(0, 9))


@given(wanted=numbers, before=numbers, held=numbers, allocatable=st.integers(0, 20))
def test_never_more_is_accepted_than_there_is(
    wanted: dict[str, int], before: dict[str, int], held: dict[str, int], allocatable: int
) -> None:
    found = accept(
        [_assignment(name, slots) for name, slots in wanted.items()],
        allocatable,
        {_key(name): slots for name, slots in before.items()},
        {_key(name): slots for name, slots in held.items()},
    )
    others = sum(slots for name, slots in held.items() if name not in wanted)
    assert sum(found.values()) <= max(0, allocatable - others)
    for name, slots in wanted.items():
        assert 0 <= found[_key(name)] <= slots
