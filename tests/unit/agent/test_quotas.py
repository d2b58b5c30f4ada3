"""Quotas in the slot table: no workload gets more than it was promised, nor what another was promised.

Covers every take against a model in Python with the same calls; what is refused, and with which numbers; quotas that
are set, changed and cleared while slots are held; what a process that was killed half-way had changed; and workers of
several workloads that are killed at any moment.
"""

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tests.allocation import shape_of
from wasmpool_agent import _native
from wasmpool_agent.allocators import NoFreeSlotError, QuotaReachedError
from wasmpool_agent.allocators.counted import CountedSlots
from wasmpool_agent.region import Region
from wasmpool_agent.slots import Quota, QuotaRefusedError, SlotState, SlotTable

SLOTS = 6
WORKLOADS = st.integers(1, 4)


class QuotasAgainstModel(RuleBasedStateMachine):
    """The same calls to the table and to two dictionaries. Workload 4 never has a quota."""

    def __init__(self) -> None:
        super().__init__()
        self.table = SlotTable.create(SLOTS)
        self.limits: dict[int, tuple[int, int]] = {}
        self.held: dict[int, int] = {}  # slot -> workload
        self.lost: set[int] = set()

    def teardown(self) -> None:
        self.table.close()

    def used(self, workload: int) -> int:
        return list(self.held.values()).count(workload)

    @property
    def unreserved(self) -> int:
        return max(0, SLOTS - len(self.lost) - sum(reserved for reserved, _ in self.limits.values()))

    @property
    def borrowed(self) -> int:
        return sum(max(0, self.used(w) - self.limits.get(w, (0, 0))[0]) for w in (1, 2, 3, 4))

    @rule(workload=WORKLOADS)
    def take(self, workload: int) -> None:
        reserved, burst = self.limits.get(workload, (SLOTS, 0))
        used = self.used(workload)
        may = used < reserved or (used < reserved + burst and self.borrowed < self.unreserved)
        taken = self.table.take(1, workload)
        if not may:
            assert taken == Quota(workload, reserved, burst, used, self.borrowed, self.unreserved)
        elif len(self.held) + len(self.lost) == SLOTS:
            assert taken is None
        else:
            assert isinstance(taken, int)
            assert taken not in self.held
            self.held[taken] = workload

    @precondition(lambda self: self.held)
    @rule(choice=st.integers(0), wiped=st.booleans())
    def release(self, choice: int, wiped: bool) -> None:
        index = sorted(self.held)[choice % len(self.held)]
        self.table.native.mark_dirty(index, 0 if wiped else 65536)
        self.table.release(index, 1)
        del self.held[index]

    @rule(workload=st.integers(1, 3), reserved=st.integers(0, 4), burst=st.integers(0, 4))
    def set_quota(self, workload: int, reserved: int, burst: int) -> None:
        before = self.limits.get(workload, (0, 0))[0]
        if reserved > before and reserved - before > self.unreserved:
            with pytest.raises(QuotaRefusedError):
                self.table.set_quota(workload, reserved, burst)
        else:
            self.table.set_quota(workload, reserved, burst)
            self.limits[workload] = (reserved, burst)

    @rule(workload=WORKLOADS)
    def clear_quota(self, workload: int) -> None:
        self.table.clear_quota(workload)
        self.limits.pop(workload, None)

    @precondition(lambda self: len(self.lost) < 2)
    @rule(index=st.integers(0, SLOTS - 1))
    def quarantine(self, index: int) -> None:
        self.table.quarantine(index)
        self.lost.add(index)
        self.held.pop(index, None)

    @rule()
    def die_inside_the_lock(self) -> None:
        child = os.fork()
        if child == 0:
            self.table.native.lock_for_test()
            os.kill(os.getpid(), signal.SIGKILL)
        os.waitpid(child, 0)

    @invariant()
    def quotas_agree(self) -> None:
        assert self.table.native.broken() is None
        for workload in (1, 2, 3, 4):
            assert self.table.used_by(workload) == self.used(workload)
            quota = self.table.quota(workload)
            if workload in self.limits:
                assert quota == Quota(
                    workload, *self.limits[workload], self.used(workload), self.borrowed, self.unreserved
                )
            else:
                assert quota is None


QuotasAgainstModel.TestCase.settings = settings(max_examples=80, stateful_step_count=40, deadline=None)
TestQuotas = QuotasAgainstModel.TestCase


@pytest.fixture
def table() -> Iterator[SlotTable]:
    with SlotTable.create(SLOTS) as table:
        yield table


def test_what_a_workload_has_reserved_is_there_when_others_have_borrowed_all_they_can(table: SlotTable) -> None:
    table.set_quota(1, 2, 0)
    table.set_quota(2, 1, 9)
    borrowed = [table.take(1, 2) for _ in range(9)]
    assert [isinstance(slot, int) for slot in borrowed] == [True] * 4 + [False] * 5
    assert all(isinstance(table.take(1, 1), int) for _ in range(2))
    assert table.take(1, 1) == Quota(1, reserved=2, burst=0, used=2, borrowed=3, unreserved=3)


def test_an_allocator_says_whether_the_table_is_full_or_the_workload_has_its_share(table: SlotTable) -> None:
    allocator = CountedSlots(table, 1, memories=1, memory_pages=1)
    table.set_quota(1, 1, 1)
    table.set_quota(2, 3, 9)
    for _ in range(2):
        allocator.allocate(1)
    with pytest.raises(QuotaReachedError, match="1 reserved slots are used, all 1 that it may borrow") as mine:
        allocator.allocate(1)
    assert mine.value.quota.used == 2
    for _ in range(4):
        allocator.allocate(2)
    with pytest.raises(QuotaReachedError, match="used, 1 of 9 that it may borrow, and 2 are lent of the 2 that nobody"):
        allocator.allocate(2)
    with pytest.raises(NoFreeSlotError, match="of 6, 6 are used") as full:
        allocator.allocate(3)
    assert not isinstance(full.value, QuotaReachedError)
    counted = table.taken()
    assert (counted.taken, counted.quota_reached, counted.exhausted) == (6, 2, 1)


def test_a_slot_counts_until_another_could_take_it(table: SlotTable) -> None:
    table.set_quota(1, 1, 0)
    for dirty in (0, 65536):  # back as FREE, and back as UNKNOWN
        index = table.take(1, 1)
        assert isinstance(index, int)
        assert table.used_by(1) == 1
        assert isinstance(table.take(1, 1), Quota)
        table.native.mark_dirty(index, dirty)
        table.release(index, 1)
        assert table.used_by(1) == 0
    lost = table.take(1, 1)
    assert isinstance(lost, int)
    table.quarantine(lost)
    assert table.used_by(1) == 0


def test_slots_of_a_workload_without_a_quota_can_not_be_borrowed_a_second_time(table: SlotTable) -> None:
    table.set_quota(1, 2, 0)
    table.set_quota(2, 0, 6)
    assert all(isinstance(table.take(1, 9), int) for _ in range(3))
    assert isinstance(table.take(1, 2), int)
    assert isinstance(table.take(1, 2), Quota)  # the two that are left are reserved
    assert all(isinstance(table.take(1, 1), int) for _ in range(2))


def test_no_more_is_reserved_than_there_is(table: SlotTable) -> None:
    table.set_quota(1, 4, 0)
    with pytest.raises(QuotaRefusedError, match="3 slots can't be reserved: of 6 usable ones"):
        table.set_quota(2, 3, 0)
    table.set_quota(1, 3, 0)
    table.set_quota(2, 3, 1)
    table.quarantine(5)
    with pytest.raises(QuotaRefusedError):
        table.set_quota(1, 4, 0)
    table.set_quota(1, 2, 7)  # shrinking is always possible
    with pytest.raises(OSError, match="Invalid"):
        table.set_quota(0, 1, 0)


def test_there_are_so_many_quotas_and_not_one_more() -> None:
    with SlotTable.create(1) as table:
        for workload in range(1, _native.QUOTAS_MAX + 1):
            table.native.set_quota(workload << 40, 0, 1)
        with pytest.raises(QuotaRefusedError, match="4096 workloads have quotas"):
            table.set_quota(1, 0, 1)
        table.clear_quota(77 << 40)
        table.set_quota(1, 0, 1)
        assert table.quota(77 << 40) is None
        assert table.quota(78 << 40) is not None
        assert table.native.broken() is None


HALFWAY = {
    "taken, but not counted": "words[record(2) + 4] = 1; words[record(2) + 1] = 1; words[record(2)] = 1",
    "given back, but still counted": "words[record(0)] = 0",
    "a quota without a bucket": "words[quota(2) + 2] = 3; words[quota(2)] = 77",
    "a bucket of no quota": "words[quota(0)] = 0",
    "counts of nothing": "words[quota(0) + 4] = 99; words[quota(1) + 4] = 0; words[20] = 5",
    "buckets in a ring": "words[buckets:buckets + 2048] = memoryview(b'\\1\\0' * 4096).cast('I')",
}


@pytest.mark.parametrize("change", HALFWAY)
def test_what_a_killed_process_had_half_counted_is_counted_anew(table: SlotTable, change: str) -> None:
    table.set_quota(1, 2, 1)
    table.set_quota(2, 1, 0)
    assert [table.take(1, 1), table.take(1, 1), table.take(1, 2)] == [0, 1, 2]
    table.release(2, 1)
    code = (
        "import mmap, os, signal\nfrom wasmpool_agent import _native\n"
        f"words = memoryview(mmap.mmap({table.fd}, 0)).cast('B').cast('I')\n"
        "def record(index): return (4096 + 64 * index) // 4\n"
        f"def quota(index): return (4096 + 72 * {SLOTS} + 32 * index) // 4\n"
        f"buckets = quota({_native.QUOTAS_MAX})\n"
        f"locked = _native.SlotTable({table.fd}); locked.lock_for_test()\n{HALFWAY[change]}\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], pass_fds=[table.fd], check=False)
    assert done.returncode == -signal.SIGKILL
    assert table.native.broken() is None
    assert table.native.recoveries() == 1
    records = [table.record(index) for index in range(SLOTS)]
    holds = Counter(it.workload for it in records if it.state is SlotState.USED)
    for workload in (1, 2):
        assert table.used_by(workload) == holds[workload]
    quota = table.quota(2)
    assert quota is not None
    assert (quota.reserved, quota.burst, quota.used) == (1, 0, holds[2])


WORKER = """
import sys
from wasmpool_agent.slots import Quota, SlotTable
worker, fd = int(sys.argv[1]), int(sys.argv[2])
table, step = SlotTable.attach(fd), worker
print("ready", flush=True)
while True:
    step = step * 1103515245 + 12345 & 0x7FFFFFFF
    workload, held = 1 + (step >> 8) % 3, []
    for _ in range(1 + (step >> 16) % 4):
        slot = table.take(worker, workload)
        if slot is None:
            sys.exit(f"workload {workload} was refused what its quota allows")
        if isinstance(slot, Quota):
            if slot.used < slot.reserved:
                sys.exit(f"refused what is reserved: {slot}")
            break
        held.append(slot)
    for slot in held:
        table.native.mark_dirty(slot, step >> 20 & 1)
        table.release(slot, worker)
"""


def test_workers_killed_at_any_moment_leave_every_promise_kept() -> None:
    shape = shape_of("compact", slots=7, memories=1, memory_pages=1, page_bytes=4096)
    limits = {1: (2, 1), 2: (3, 0), 3: (0, 4)}
    chance = random.Random(5)  # noqa: S311 - picks moments and victims
    with Region.reserve(shape) as region, SlotTable.create(7) as table:
        for workload, (reserved, burst) in limits.items():
            table.set_quota(workload, reserved, burst)

        def spawn(worker: int) -> subprocess.Popen[str]:
            child = subprocess.Popen(
                [sys.executable, "-c", WORKER, str(worker), str(table.fd)],
                pass_fds=[table.fd],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            assert child.stdout is not None
            assert child.stdout.readline() == "ready\n"
            return child

        def end(worker: int) -> None:
            child = children.pop(worker)
            child.kill()
            _, complaint = child.communicate()
            assert child.returncode == -signal.SIGKILL, complaint
            assert table.native.broken() is None
            table.reclaim(worker, region)
            assert table.native.broken() is None

        def promises_are_kept() -> None:
            for workload, (reserved, burst) in limits.items():
                quota = table.quota(workload)
                assert quota is not None
                assert (quota.reserved, quota.burst) == (reserved, burst)
                assert quota.used <= reserved + burst
                assert quota.borrowed <= quota.unreserved == 2

        children = {worker: spawn(worker) for worker in (1, 2, 3)}
        for _ in range(12):
            for _ in range(20):
                time.sleep(chance.uniform(0.0001, 0.0015))
                promises_are_kept()
            victim = chance.choice((1, 2, 3))
            end(victim)
            children[victim] = spawn(victim)
        for worker in (1, 2, 3):
            end(worker)
        assert [table.used_by(workload) for workload in limits] == [0, 0, 0]
        for workload, (reserved, _) in limits.items():
            assert all(isinstance(table.take(9, workload), int) for _ in range(reserved)), workload
