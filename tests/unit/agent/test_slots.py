"""The slot table: no slot twice, none lost, whatever the order of calls and whoever dies.

Covers each strategy against a model in Python with the same calls; exhaustion; who may release; quarantine; slots that
come back unwiped; processes that are killed at any moment, also inside the table's lock; and descriptors that are no
table.
"""

import errno
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tests.allocation import shape_of
from wasmpool_agent import _native
from wasmpool_agent.region import Region
from wasmpool_agent.slots import SlotCounts, SlotState, SlotTable
from wasmpool_api.instance_pool import AllocationStrategy

SLOTS = 5


class TableAgainstModel(RuleBasedStateMachine):
    """The same calls to the table and to a list; they must agree after each one."""

    strategy = AllocationStrategy.NEXT_AVAILABLE

    def __init__(self) -> None:
        super().__init__()
        self.table = SlotTable.create(SLOTS, self.strategy, seed=3)
        self.free = list(range(SLOTS - 1, -1, -1))  # the last one was freed last
        self.held: dict[int, int] = {}
        self.unwiped: set[int] = set()
        self.lost: set[int] = set()
        self.module: dict[int, int] = {}

    def teardown(self) -> None:
        self.table.close()

    def expected(self, module: int) -> set[int]:
        """Which slots the strategy may choose."""
        if not self.free:
            return set(sorted(self.unwiped)[:1])
        match self.strategy:
            case AllocationStrategy.NEXT_AVAILABLE:
                return {self.free[-1]}
            case AllocationStrategy.RANDOM:
                return set(self.free)
            case AllocationStrategy.MODULE_AFFINITY:
                affine = [index for index in self.free if self.module.get(index, 0) == module]
                return {affine[-1] if affine else self.free[0]}

    @rule(worker=st.integers(1, 3), module=st.integers(1, 3))
    def take(self, worker: int, module: int) -> None:
        may = self.expected(module)
        index = self.table.take(worker, 100 + worker, module)
        assert (index is None) == (not may)
        if not isinstance(index, int):
            return
        assert index in may
        assert index not in self.held
        if index in self.free:
            self.free.remove(index)
        self.unwiped.discard(index)
        self.held[index] = worker
        self.module[index] = module

    @precondition(lambda self: self.held)
    @rule(choice=st.integers(0), wiped=st.booleans())
    def release(self, choice: int, wiped: bool) -> None:
        index = sorted(self.held)[choice % len(self.held)]
        self.table.native.mark_dirty(index, 0 if wiped else 65536)
        self.table.release(index, self.held.pop(index))
        if index not in self.lost:
            (self.free.append if wiped else self.unwiped.add)(index)

    @rule(index=st.integers(0, SLOTS - 1), worker=st.integers(1, 3))
    def release_of_another(self, index: int, worker: int) -> None:
        if self.held.get(index) == worker or index in self.lost:
            return
        with pytest.raises(PermissionError):
            self.table.release(index, worker)

    @precondition(lambda self: len(self.lost) < 2)
    @rule(index=st.integers(0, SLOTS - 1))
    def quarantine(self, index: int) -> None:
        self.table.quarantine(index)
        self.lost.add(index)
        self.held.pop(index, None)
        self.unwiped.discard(index)
        # The order of the others is no promise of quarantine: here it is that of a new table.
        self.free = sorted(set(self.free) - {index}, reverse=True)

    @invariant()
    def counts_agree(self) -> None:
        assert self.table.native.broken() is None
        counts = self.table.counts()
        expected = SlotCounts(len(self.free), len(self.held), len(self.unwiped), len(self.lost))
        assert counts == expected
        assert counts.total == SLOTS
        for worker in (1, 2, 3):
            assert self.table.owned_by(worker) == sorted(i for i, w in self.held.items() if w == worker)


class RandomAgainstModel(TableAgainstModel):
    strategy = AllocationStrategy.RANDOM


class ModuleAffinityAgainstModel(TableAgainstModel):
    strategy = AllocationStrategy.MODULE_AFFINITY


for machine in (TableAgainstModel, RandomAgainstModel, ModuleAffinityAgainstModel):
    machine.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestNextAvailable = TableAgainstModel.TestCase
TestRandom = RandomAgainstModel.TestCase
TestModuleAffinity = ModuleAffinityAgainstModel.TestCase


@pytest.fixture
def table() -> Iterator[SlotTable]:
    with SlotTable.create(SLOTS) as table:
        yield table


def test_the_slot_freed_last_is_the_next_to_be_taken(table: SlotTable) -> None:
    assert [table.take(1, 9) for _ in range(SLOTS)] == [0, 1, 2, 3, 4]
    assert table.take(1, 9) is None
    table.release(3)
    table.release(1)
    assert [table.take(1, 9), table.take(1, 9), table.take(1, 9)] == [1, 3, None]


def test_random_takes_the_same_slots_for_the_same_seed_and_all_of_them() -> None:
    def order(seed: int) -> list[object]:
        with SlotTable.create(40, AllocationStrategy.RANDOM, seed=seed) as table:
            return [table.take(1, 1) for _ in range(41)]

    assert order(1) == order(1) != order(2)
    assert sorted(order(1)[:40]) == list(range(40))
    assert order(1)[40] is None


@settings(max_examples=5, deadline=None)
@given(st.integers(1, 2**64 - 1))
def test_random_prefers_no_slot(seed: int) -> None:
    with SlotTable.create(8, AllocationStrategy.RANDOM, seed=seed) as table:
        seen = [0] * 8
        for _ in range(4000):
            index = table.take(1, 1)
            assert isinstance(index, int)
            seen[index] += 1
            table.release(index, 1)
    assert 350 < min(seen) <= max(seen) < 650  # 500 each; seven standard deviations either way


def test_a_record_says_who_has_the_slot_and_for_the_how_manieth_time(table: SlotTable) -> None:
    for generation in (1, 2, 3):
        index = table.take(7, 42, 5)
        assert index == 0
        record = table.record(0)
        assert (record.state, record.worker, record.workload, record.module) == (SlotState.USED, 7, 42, 5)
        assert record.generation == generation
        table.release(0, 7)
    assert table.record(0).state is SlotState.FREE


def test_releasing_twice_is_an_error_and_frees_nothing_twice(table: SlotTable) -> None:
    table.take(1, 1)
    table.release(0, 1)
    with pytest.raises(PermissionError):
        table.release(0, 1)
    with pytest.raises(OSError, match="range") as error:
        table.release(99, 1)
    assert error.value.errno == errno.ERANGE
    assert table.counts() == SlotCounts(free=SLOTS, used=0, wiping=0, quarantined=0)


def test_all_processes_see_one_table(table: SlotTable) -> None:
    table.take(1, 1)
    code = (
        f"from wasmpool_agent.slots import SlotTable\nt = SlotTable.attach({table.fd}); print(t.take(2, 2), t.slots)\n"
    )
    out = subprocess.run([sys.executable, "-c", code], pass_fds=[table.fd], capture_output=True, check=True, text=True)
    assert out.stdout.split() == ["1", str(SLOTS)]
    assert table.owned_by(1) == [0]
    assert table.owned_by(2) == [1]


def test_a_process_killed_inside_the_lock_leaves_a_table_in_order(table: SlotTable) -> None:
    table.take(1, 1)
    code = (
        "import os, signal\nfrom wasmpool_agent import _native\n"
        f"t = _native.SlotTable({table.fd}); t.take(2, 2, 0, 0); t.lock_for_test()\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    for round_ in (1, 2):
        done = subprocess.run([sys.executable, "-c", code], pass_fds=[table.fd], check=False)
        assert done.returncode == -signal.SIGKILL
        assert table.counts().used == 1 + round_
        assert table.native.recoveries() == round_
    assert table.native.broken() is None


HALFWAY = {
    "taken, but still on the free stack": "words[record(2)] = 1",
    "freed, but not yet on the free stack": "words[record(0)] = 0",
    "dirty, but said to be free": "words[record(3) + 6] = 1",
    "in a state that there is not": "words[record(1)] = 77",
}


@pytest.mark.parametrize("change", HALFWAY)
def test_what_a_killed_process_had_half_done_is_put_in_order_before_the_next_call(
    table: SlotTable, change: str
) -> None:
    assert [table.take(1, 1), table.take(1, 1)] == [0, 1]
    code = (
        "import mmap, os, signal\nfrom wasmpool_agent import _native\n"
        f"words = memoryview(mmap.mmap({table.fd}, 0)).cast('I')\n"
        "def record(index): return (4096 + 64 * index) // 4\n"
        f"locked = _native.SlotTable({table.fd}); locked.lock_for_test()\n{HALFWAY[change]}\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], pass_fds=[table.fd], check=False)
    assert done.returncode == -signal.SIGKILL
    assert table.native.broken() is None
    assert table.counts().total == SLOTS
    taken = {table.take(3, 3) for _ in range(table.counts().free + table.counts().wiping)}
    assert None not in taken
    assert table.take(3, 3) is None
    assert not taken & set(table.owned_by(1))


def test_what_is_no_slot_table_is_refused() -> None:
    for content in (b"", b"x" * 8192):
        fd = os.memfd_create("no-table")
        os.write(fd, content)
        with pytest.raises(OSError, match="Invalid"):
            SlotTable.attach(fd)
        os.close(fd)
    for slots in (0, -1, _native.SLOTS_MAX + 1):
        with pytest.raises(ValueError, match=r"instanceLimits\.count is"):
            SlotTable.create(slots)


def test_a_closed_table_says_so_and_closes_again() -> None:
    table = SlotTable.create(2)
    table.close()
    table.close()
    with pytest.raises(ValueError, match="closed"):
        table.counts()


WORKER = """
import sys
from wasmpool_agent import _native
worker, region_fd, table_fd, length, slot = (int(a) for a in sys.argv[1:])
region, table = _native.Region(region_fd, length), _native.SlotTable(table_fd)
mine, step = bytes([worker]) * slot, worker
print("ready", flush=True)
while True:
    step = step * 1103515245 + 12345 & 0x7FFFFFFF
    taken = table.take(worker, worker, step % 3, step % 3)
    if taken is None:
        continue
    index, start = taken[0], taken[0] * slot
    if table.record(index)[4]:              # dirty: its last tenant died or did not wipe
        region.wipe(start, slot)
    if region.first_dirty(start, slot) is not None:
        sys.exit(f"slot {index} is not clean")
    table.mark_dirty(index, slot)
    region.write(start, mine)
    if region.read(start, slot) != mine:
        sys.exit(f"slot {index} has a second tenant")
    if step % 5:
        region.wipe(start, slot)
        table.mark_dirty(index, 0)
    table.release(index, worker)
"""


def test_workers_killed_at_any_moment_lose_no_slot_and_leak_no_byte() -> None:
    shape = shape_of("compact", slots=4, memories=1, memory_pages=1, page_bytes=4096)
    chance = random.Random(11)  # noqa: S311 - picks moments and victims
    with Region.reserve(shape) as region, SlotTable.create(4) as table:

        def spawn(worker: int) -> subprocess.Popen[str]:
            numbers = (worker, region.fd, table.fd, shape.region_bytes, shape.slot_bytes)
            child = subprocess.Popen(
                [sys.executable, "-c", WORKER, *map(str, numbers)],
                pass_fds=[region.fd, table.fd],
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
            table.reclaim(worker, region)
            assert table.native.broken() is None
            assert table.owned_by(worker) == []

        children = {worker: spawn(worker) for worker in (1, 2, 3)}
        for _ in range(12):
            time.sleep(chance.uniform(0.001, 0.03))
            victim = chance.choice((1, 2, 3))
            end(victim)
            children[victim] = spawn(victim)
        for worker in (1, 2, 3):
            end(worker)
        counts = table.counts()
        assert counts.used == counts.quarantined == 0
        assert counts.total == 4
        for index in range(4):
            if table.record(index).state is SlotState.FREE:
                region.prove_clean(index)


def test_a_slot_that_is_not_clean_after_its_wipe_is_never_given_to_anybody() -> None:
    shape = shape_of("compact", slots=2, memories=1, memory_pages=160, page_bytes=4096)
    writer = (
        "import mmap, sys; memory = mmap.mmap(int(sys.argv[1]), int(sys.argv[2])); print(flush=True)\n"
        "while True: memory[-1] = 1"
    )
    with Region.reserve(shape) as region, SlotTable.create(2) as table:
        command = [sys.executable, "-c", writer, str(region.fd), str(shape.slot_bytes)]
        with subprocess.Popen(command, pass_fds=[region.fd], stdout=subprocess.PIPE) as somebody:
            try:
                assert somebody.stdout is not None
                somebody.stdout.readline()
                for _ in range(100):  # it must write between the wipe and the proof
                    assert table.take(1, 1) == 0
                    table.native.mark_dirty(0, 1)
                    if table.reclaim(1, region) == 0:
                        break
            finally:
                somebody.kill()
        assert table.counts() == SlotCounts(free=1, used=0, wiping=0, quarantined=1)
        assert table.take(2, 1) == 1
        assert table.take(2, 1) is None


def test_reclaim_wipes_what_a_dead_worker_wrote_and_nothing_of_others() -> None:
    shape = shape_of("compact", slots=3, memories=1, memory_pages=2, page_bytes=4096)
    with Region.reserve(shape) as region, SlotTable.create(3) as table:
        for worker in (1, 2):
            index = table.take(worker, 1)
            assert isinstance(index, int)
            table.native.mark_dirty(index, 1)
            region.native.write(shape.slot_offset(index), bytes([worker]) * shape.slot_bytes)
        assert table.reclaim(1, region) == 1
        region.prove_clean(0)
        assert region.native.read(shape.slot_offset(1), shape.slot_bytes) == b"\2" * shape.slot_bytes
        assert table.reclaim(1, region) == 0
        assert table.counts() == SlotCounts(free=2, used=1, wiping=0, quarantined=0)
