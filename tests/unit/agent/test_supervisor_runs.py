"""Which instances of a workload are started and stopped, and when: without a worker, a clock or a disk.

Covers: the restart policies; indexes; back-off and its end; scale up and down; lost workers; and, under any sequence of
events, that no more instances live than there are slots, none twice at one place, and no Never index twice.
"""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from wasmpool_agent.protocol import Result
from wasmpool_agent.supervisor.backoff import RESTARTS, RESTARTS_FORGIVEN_AFTER_SECONDS, Backoff
from wasmpool_agent.supervisor.runs import NO_SLOT_PAUSE_SECONDS, Ended, Runs
from wasmpool_api.wasm_workload import RestartPolicy

NOW = 1000.0
GOOD = Ended(Result.SUCCESS, 0.1, 0)
BAD = Ended(Result.ERROR, 0.1, 3)


def _runs(policy: RestartPolicy, slots: int, indexes: set[int] | None = None) -> Runs:
    runs = Runs(policy)
    runs.assign(slots, frozenset(indexes or ()))
    return runs


def _start_all(runs: Runs, now: float = NOW, first: int = 1) -> dict[int, int]:
    """Position to instance."""
    begun = {position: number for number, position in enumerate(runs.plan(now).start, first)}
    for position, number in begun.items():
        runs.begun(position, number)
        runs.running_now(number)
    return begun


def test_as_many_instances_as_slots_are_started_at_once() -> None:
    assert _runs(RestartPolicy.ALWAYS, 3).plan(NOW).start == (0, 1, 2)


def test_an_index_that_is_given_is_what_runs() -> None:
    assert _runs(RestartPolicy.NEVER, 2, {4, 7}).plan(NOW).start == (4, 7)


def test_no_more_indexes_run_at_once_than_there_are_slots() -> None:
    runs = _runs(RestartPolicy.ON_FAILURE, 2, {0, 1, 2})
    begun = _start_all(runs)
    assert sorted(begun) == [0, 1]
    runs.ended(begun[0], GOOD, NOW)
    assert runs.plan(NOW).start == (2,)


def test_an_instance_that_ends_well_is_started_again_only_by_always() -> None:
    for policy, again in (
        (RestartPolicy.ALWAYS, True),
        (RestartPolicy.ON_FAILURE, False),
        (RestartPolicy.NEVER, False),
    ):
        runs = _runs(policy, 1, {0})
        runs.ended(_start_all(runs)[0], GOOD, NOW)
        assert bool(runs.plan(NOW + 1000).start) is again, policy
        assert (0 in runs.completed) is not again


def test_an_instance_that_fails_is_not_started_again_by_never_and_counts_as_failed() -> None:
    runs = _runs(RestartPolicy.NEVER, 1, {0})
    runs.ended(_start_all(runs)[0], BAD, NOW)
    assert runs.plan(NOW + 1000).start == ()
    assert runs.failed == {0}
    assert runs.finished


def test_a_run_that_got_no_slot_never_began_so_that_never_tries_it_again() -> None:
    runs = _runs(RestartPolicy.NEVER, 1, {0})
    runs.ended(_start_all(runs)[0], Ended(Result.NO_SLOT), NOW)
    assert runs.failed == set()
    assert runs.plan(NOW).start == ()
    assert runs.plan(NOW).wake_at == NOW + NO_SLOT_PAUSE_SECONDS
    assert runs.plan(NOW + NO_SLOT_PAUSE_SECONDS).start == (0,)


def test_pauses_double_with_every_failure_up_to_five_minutes() -> None:
    runs, now, pauses = _runs(RestartPolicy.ALWAYS, 1), NOW, []
    for _ in range(11):
        runs.ended(_start_all(runs, now)[0], BAD, now)
        wake_at = runs.plan(now).wake_at
        assert wake_at is not None
        pauses.append(wake_at - now)
        now = wake_at
    assert pauses == [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]
    assert runs.restarts == 11


def test_a_long_run_forgets_the_failures_before_it() -> None:
    runs = _runs(RestartPolicy.ALWAYS, 1)
    for failure in (BAD, BAD, Ended(Result.TRAP, RESTARTS_FORGIVEN_AFTER_SECONDS)):
        runs.ended(_start_all(runs, NOW + 1000)[0], failure, NOW)
    assert runs.plan(NOW).wake_at == NOW + RESTARTS.first_seconds


def test_an_index_that_fails_more_often_than_its_backoff_limit_has_failed_and_others_go_on() -> None:
    runs = Runs(RestartPolicy.ON_FAILURE, backoff_limit=2)
    runs.assign(2, frozenset({0, 1}))
    now = NOW
    for number in range(10, 13):
        assert 0 in runs.plan(now).start, number
        runs.begun(0, number)
        runs.ended(number, BAD, now)
        now += 1000
    assert (runs.failed, runs.restarts) == ({0}, 2)
    assert runs.plan(now).start == (1,)


def test_a_lost_worker_uses_up_no_try() -> None:
    runs = Runs(RestartPolicy.ON_FAILURE, backoff_limit=0)
    runs.assign(1, frozenset({0}))
    runs.ended(_start_all(runs)[0], Ended(Result.ERROR, lost=True), NOW)
    assert (runs.failed, runs.plan(NOW + 1000).start) == (set(), (0,))


def test_back_off_never_overflows() -> None:
    assert Backoff(1, 300).seconds(10**9) == 300


def test_scaling_down_stops_the_highest_positions_and_starts_none_meanwhile() -> None:
    runs = _runs(RestartPolicy.ALWAYS, 3)
    begun = _start_all(runs)
    runs.assign(1, frozenset())
    plan = runs.plan(NOW)
    assert set(plan.stop) == {begun[1], begun[2]}
    for instance in plan.stop:
        runs.stopping(instance)
    assert runs.plan(NOW).stop == ()
    assert runs.used == 3
    runs.ended(begun[2], Ended(Result.STOPPED), NOW)
    assert runs.used == 2
    assert runs.plan(NOW).start == ()
    assert runs.restarts == 0


def test_an_index_that_is_taken_away_is_stopped_and_fails_where_it_must_not_run_twice() -> None:
    runs = _runs(RestartPolicy.NEVER, 1, {0})
    begun = _start_all(runs)
    runs.assign(0, frozenset())
    assert runs.plan(NOW).stop == (begun[0],)
    runs.stopping(begun[0])
    runs.ended(begun[0], Ended(Result.STOPPED), NOW)
    assert runs.failed == {0}


def test_a_lost_worker_fails_a_never_run_and_repeats_the_others() -> None:
    for policy in RestartPolicy:
        runs = _runs(policy, 1, {0})
        runs.ended(_start_all(runs)[0], Ended(Result.ERROR, lost=True), NOW)
        again = runs.plan(NOW + 300).start
        assert again == (() if policy is RestartPolicy.NEVER else (0,)), policy
        assert runs.last is not None
        assert runs.last.describe() == "lost: the process that ran it died"


class AnyOrder(RuleBasedStateMachine):
    """Whatever happens, in whatever order, what `runs.py` promises holds."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.live: dict[int, int] = {}
        self.began: list[int] = []
        self.next_instance = 1
        self.runs = Runs(RestartPolicy.NEVER)

    @rule(policy=st.sampled_from(RestartPolicy))
    @precondition(lambda self: not self.began)
    def choose(self, policy: RestartPolicy) -> None:
        self.runs = Runs(policy)

    @rule(slots=st.integers(0, 4), indexes=st.frozensets(st.integers(0, 6)))
    def assign(self, slots: int, indexes: frozenset[int]) -> None:
        self.runs.assign(slots, indexes)

    @rule(seconds=st.floats(0, 400))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def carry_out(self) -> None:
        plan = self.runs.plan(self.now)
        for instance in plan.stop:
            assert instance in self.live
            self.runs.stopping(instance)
        assert len(self.live) + len(plan.start) <= max(len(self.live), self.runs.slots)
        for position in plan.start:
            assert position not in self.live.values()
            assert position not in self.runs.completed | self.runs.failed
            self.runs.begun(position, self.next_instance)
            self.live[self.next_instance] = position
            self.began.append(position)
            self.next_instance += 1

    @rule(data=st.data(), result=st.sampled_from(Result), seconds=st.floats(0, 2000), lost=st.booleans())
    @precondition(lambda self: self.live)
    def end(self, data: st.DataObject, result: Result, seconds: float, lost: bool) -> None:
        instance = data.draw(st.sampled_from(sorted(self.live)))
        position = self.live.pop(instance)
        assert self.runs.ended(instance, Ended(result, seconds, lost=lost), self.now) == position
        assert self.runs.ended(instance, GOOD, self.now) is None
        if result is Result.NO_SLOT and self.runs.policy is RestartPolicy.NEVER:
            self.began.remove(position)

    @invariant()
    def used_is_what_lives(self) -> None:
        assert self.runs.used == len(self.live)

    @invariant()
    def no_never_index_begins_twice(self) -> None:
        if self.runs.policy is RestartPolicy.NEVER:
            assert len(self.began) == len(set(self.began))

    @invariant()
    def an_index_is_done_once(self) -> None:
        assert not self.runs.completed & self.runs.failed


AnyOrder.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestAnyOrder = AnyOrder.TestCase
