"""Engine configurations: what each allocator's code may be loaded by, what is refused before it aborts, and the probe.

A bad configuration aborts the process that makes an engine of it. Covered: that limits which would do so are refused
with their numbers first; that the probe turns an abort into a reason; that code compiled without a region runs on the
engine that has one; and that code of other settings is refused.
"""

import asyncio
import re
import subprocess
import sys

import pytest
import wasmtime

from wasmpool_agent.allocators import AllocatorKind, allocator_for, allocator_kind
from wasmpool_agent.allocators.base_pages import pooling_options
from wasmpool_agent.allocators.guarded import GuardedAllocator, refuse_without_room
from wasmpool_agent.allocators.process_room import ProcessRoom
from wasmpool_agent.engine import compiler_config, engine_config, settings_key
from wasmpool_agent.probe import probe_engine, reason
from wasmpool_agent.refusals import EngineRefusedError
from wasmpool_agent.region import Region
from wasmpool_agent.slots import SlotTable
from wasmpool_api.instance_pool import Allocation, AllocationType, Backing, InstancePoolSpec
from wasmpool_api.limits import ComponentLimits, InstanceLimits, ModuleLimits
from wasmpool_api.quantities import Quantity
from wasmpool_api.region import RegionShape, region_shape

COMPACT_BYTES = Quantity(16 * 1024**2)


def spec_of(kind: AllocatorKind, *, count: int = 4, memories: int = 1, memory_pages: int = 32) -> InstancePoolSpec:
    """A pool that asks for this allocator."""
    backing = Backing.BASE_PAGES if kind is AllocatorKind.BASE_PAGES else Backing.HUGE_PAGES_2MI
    type_ = AllocationType.ON_DEMAND if kind is AllocatorKind.ON_DEMAND else AllocationType.POOLING
    space = COMPACT_BYTES if kind is AllocatorKind.COMPACT else Quantity(6 * 1024**3)
    return InstancePoolSpec(
        instance_limits=InstanceLimits(count=count, address_space_size=space),
        allocation=Allocation(type=type_, backing=backing),
        module_limits=ModuleLimits(memories=memories, memory_pages=memory_pages),
    )


kinds = pytest.mark.parametrize("kind", list(AllocatorKind))


@kinds
def test_the_pool_decides_which_allocator_it_gets(kind: AllocatorKind) -> None:
    assert allocator_kind(spec_of(kind)) is kind
    fallback = allocator_kind(spec_of(kind), Backing.BASE_PAGES)
    assert fallback is (kind if kind is AllocatorKind.ON_DEMAND else AllocatorKind.BASE_PAGES)


@kinds
def test_the_probe_passes_for_every_allocator(kind: AllocatorKind) -> None:
    asyncio.run(probe_engine(spec_of(kind, memories=2)))


@pytest.mark.parametrize(
    ("kind", "count", "message"),
    [
        (
            AllocatorKind.BASE_PAGES,
            20_000,
            "count 20000 on base pages may take 120000 mappings beside the program's, vm",
        ),
        (AllocatorKind.GUARDED, 30_000, "count: 30000 with 1 memories, .* bytes of address space for each memory"),
        (AllocatorKind.COMPACT, 2**21, f"count is {2**21}, 1 to 100000 is allowed"),
    ],
)
def test_the_probe_refuses_with_the_field_and_both_numbers(kind: AllocatorKind, count: int, message: str) -> None:
    with pytest.raises(EngineRefusedError, match=message):
        asyncio.run(probe_engine(spec_of(kind, count=count)))


def test_a_probe_that_takes_too_long_is_ended_and_says_so() -> None:
    with pytest.raises(EngineRefusedError, match=r"not made within 0\.001 s"):
        asyncio.run(probe_engine(spec_of(AllocatorKind.COMPACT), timeout_seconds=0.001))


def test_an_abort_becomes_a_reason_in_the_engines_own_words() -> None:
    code = (
        "import wasmtime\nfrom wasmpool_agent.wasmtime_private import *\nc = wasmtime.Config()\n"
        "install_pooling(c, PoolingOptions(1, 1, 10**6, 1, 0, 65536, 1, 1, 10, 0, 0, 1)); wasmtime.Engine(c)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == -6
    assert reason(done.returncode, done.stderr).startswith("the engine aborted with SIGABRT: ")
    assert "memory" in reason(done.returncode, done.stderr)
    assert "RUST_BACKTRACE" not in reason(done.returncode, done.stderr)
    assert reason(-9, "") == "the engine aborted with SIGKILL: it said nothing"
    assert reason(3, "") == "the probe ended with status 3 and said nothing"


def small(spec: InstancePoolSpec) -> RegionShape:
    """The pool's shape, with ordinary pages under it."""
    shape = region_shape(spec)
    return RegionShape(
        Backing.BASE_PAGES, 4096, shape.slot_bytes, shape.slots, shape.slots * shape.slot_bytes, shape.guarded
    )


def code_runs(spec: InstancePoolSpec, code: bytes) -> None:
    """Raises WasmtimeError if the pool's engine refuses it."""
    shape = small(spec)
    with Region.reserve(shape) as region, SlotTable.create(shape.slots) as table:
        region.shape = RegionShape(
            region_shape(spec).backing, 4096, shape.slot_bytes, shape.slots, shape.region_bytes, shape.guarded
        )
        allocator = allocator_for(spec, region, table, 1)
        engine = wasmtime.Engine(engine_config(allocator))
        module = wasmtime.Module.deserialize(engine, code)
        slot = allocator.allocate(1)
        store = wasmtime.Store(engine)
        store.set_epoch_deadline(10)
        with allocator.initialize(slot):
            wasmtime.Instance(store, module, [])
        store.close()
        allocator.deallocate(slot)


@kinds
def test_code_compiled_without_a_region_runs_on_the_engine_that_has_one_and_on_no_other(kind: AllocatorKind) -> None:
    engine = wasmtime.Engine(compiler_config(spec_of(kind)))
    code = bytes(wasmtime.Module(engine, '(module (memory 1) (data (i32.const 0) "x"))').serialize())
    for other in AllocatorKind:
        if other is kind:
            code_runs(spec_of(other), code)
        else:
            assert settings_key(spec_of(other)) != settings_key(spec_of(kind))
            with pytest.raises(wasmtime.WasmtimeError, match="Module was compiled with"):
                code_runs(spec_of(other), code)


def test_the_key_of_compiled_code_names_every_setting_and_the_version() -> None:
    key = settings_key(spec_of(AllocatorKind.COMPACT))
    assert re.match(r"agent=\d+\.\d+\S*,wasmtime=50\.", key)
    for setting in ("memory_guard_size=0", "memory_reservation=0", "memory_init_cow=0", "epoch_interruption=1"):
        assert setting in key.split(",")
    assert settings_key(spec_of(AllocatorKind.COMPACT, count=9, memory_pages=7)) == key


def test_wasmtimes_pool_gets_room_for_all_slots_in_each_worker() -> None:
    options = pooling_options(10, ModuleLimits(memories=2, tables=3), ComponentLimits(tables=20), ProcessRoom(65530))
    assert (options.memories, options.memories_per_module, options.tables, options.stacks) == (20, 2, 200, 10)
    assert options.memory_bytes == 160 * 65536
    assert options.core_instances == 300


@pytest.mark.parametrize(
    ("slots", "memories", "room", "message"),
    [
        (10_600, 1, ProcessRoom(65530), "may take 63600 mappings beside .* is 65530: at most 10588 slots"),
        (1_513, 10, ProcessRoom(65530), "may take 63546 mappings beside .* is 65530: at most 1512 slots"),
        (100, 300, ProcessRoom(65530), "count 100 with 300 memories each takes"),
        (1, 1, ProcessRoom(65530, 4096), "4096 are to be had"),
    ],
)
def test_a_pool_that_would_abort_is_refused_with_its_numbers(
    slots: int, memories: int, room: ProcessRoom, message: str
) -> None:
    with pytest.raises(EngineRefusedError, match=message):
        pooling_options(slots, ModuleLimits(memories=memories), ComponentLimits(), room)


def test_guarded_slots_beyond_the_address_space_are_refused_with_the_way_out() -> None:
    shape = RegionShape(Backing.BASE_PAGES, 4096, 65536, 22_000, 22_000 * 65536, True)
    with (
        Region.reserve(shape) as region,
        SlotTable.create(22_000) as table,
        pytest.raises(EngineRefusedError, match="set addressSpaceSize below 4Gi for compact slots"),
    ):
        GuardedAllocator(region, table, 1, memories=1, memory_pages=1)


@pytest.mark.parametrize(
    ("memories", "huge_pages", "most"),
    [(1, 1, 12_706), (1, 5, 7_058), (2, 9, 2_647), (1, 2048, 30)],
)
def test_guarded_slots_that_may_take_all_mappings_of_a_process_are_refused_with_the_numbers(
    memories: int, huge_pages: int, most: int
) -> None:
    """A process that has none left is ended by whatever needs the next one: the end of another tenant's guest."""
    page, room = 2 * 1024**2, ProcessRoom(65530)
    refuse_without_room(most, memories, huge_pages * page, page, room)
    with pytest.raises(EngineRefusedError) as refused:
        refuse_without_room(most + 1, memories, huge_pages * page, page, room)
    assert f"vm.max_map_count is 65530: at most {most} slots; lower count, or set" in str(refused.value)
    assert f"may take {(most + 1) * (2 + memories * (2 + huge_pages))} mappings" in str(refused.value)
