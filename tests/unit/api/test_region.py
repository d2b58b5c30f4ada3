"""Covers: the arithmetic of the region: where slots lie, how large it is, what it costs beside, what is refused.

`assert_region_layout_invariants` states what holds for every shape; a grid of edges and random limits both go
through it.
"""

import itertools

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wasmpool_agent import _native
from wasmpool_api.codec import decode
from wasmpool_api.instance_pool import Allocation, AllocationType, Backing, InstancePoolSpec
from wasmpool_api.limits import InstanceLimits, ModuleLimits
from wasmpool_api.quantities import Quantity
from wasmpool_api.region import (
    MAX_REGION_BYTES,
    MEMORY_ADDRESS_SPACE_BYTES,
    RegionError,
    RegionShape,
    overhead_bytes_per_node,
    region_shape,
)

KI, MI, GI, TI = 2**10, 2**20, 2**30, 2**40
PAGE_BYTES = {Backing.HUGE_PAGES_2MI: 2 * MI, Backing.HUGE_PAGES_1GI: GI, Backing.BASE_PAGES: 4 * KI}


def pool(
    count: int = 1,
    space: int = 6 * GI,
    backing: Backing = Backing.HUGE_PAGES_2MI,
    kind: AllocationType = AllocationType.POOLING,
    **limits: int,
) -> InstancePoolSpec:
    """A pool with these limits."""
    return InstancePoolSpec(
        instance_limits=InstanceLimits(count=count, address_space_size=Quantity(space)),
        allocation=Allocation(type=kind, backing=backing),
        module_limits=ModuleLimits(**limits),
    )


def with_spec(given: dict[str, object]) -> InstancePoolSpec:
    """A pool as somebody writes it."""
    return decode(InstancePoolSpec, {"instanceLimits": {"count": 1}} | given)


def assert_region_layout_invariants(spec: InstancePoolSpec, shape: RegionShape) -> None:
    """What the docstring of wasmpool_api.region promises."""
    limits = spec.module_limits
    memory = limits.memory_pages * 64 * KI
    # Slots lie side by side, from the start of the region.
    assert shape.slots == spec.instance_limits.count
    indexes = {0, 1, shape.slots // 2, shape.slots - 1} & set(range(shape.slots))
    assert all(shape.slot_offset(index) == index * shape.slot_bytes for index in indexes)
    # The last slot ends within the region, and less than a page before its end.
    end = shape.slot_offset(shape.slots - 1) + shape.slot_bytes
    assert 0 <= shape.region_bytes - end < shape.page_bytes
    # Whole pages, whole wasm pages, and a guarded slot's areas are whole pages of the backing.
    assert shape.region_bytes % shape.page_bytes == 0
    assert shape.slot_bytes % (64 * KI) == 0
    area, rest = divmod(shape.slot_bytes, limits.memories)
    assert rest == 0
    if shape.guarded:
        assert area % shape.page_bytes == 0
        assert 0 <= area - memory < shape.page_bytes
    else:
        assert area == memory
    # A slot holds its memories; the page is that of the backing; nobody could have a larger region.
    assert limits.memories * memory <= shape.slot_bytes
    assert shape.page_bytes == PAGE_BYTES[shape.backing]
    assert 0 < shape.region_bytes <= MAX_REGION_BYTES
    # The overhead is the same for each slot, and something.
    overhead = overhead_bytes_per_node(spec, shape)
    assert overhead > 0
    assert overhead % shape.slots == 0


COUNTS = (1, 2, 3, 15, 16, 17, 1000, 100_000)
PAGES = (1, 2, 31, 32, 33, 160, 16383, 16384, 16385, 65535, 65536)
SPACES = (64 * KI, 2 * GI, 4 * GI - 64 * KI, 4 * GI, 6 * GI, 128 * TI)


@pytest.mark.parametrize("backing", Backing)
@pytest.mark.parametrize("kind", AllocationType)
def test_the_invariants_hold_at_the_edges(backing: Backing, kind: AllocationType) -> None:
    made = refused = 0
    for count, pages, space, memories in itertools.product(COUNTS, PAGES, SPACES, (1, 2, 7, 100)):
        spec = pool(count, space, backing, kind, memory_pages=pages, memories=memories)
        try:
            shape = region_shape(spec)
        except RegionError:
            refused += 1
        else:
            assert_region_layout_invariants(spec, shape)
            made += 1
    assert made > 300
    assert refused > 500


def kind_takes_address_space(spec: InstancePoolSpec) -> bool:
    """Whether each memory has 4 GiB and a guard to itself."""
    return spec.allocation.type is AllocationType.POOLING and (
        spec.instance_limits.guarded or spec.allocation.backing is Backing.BASE_PAGES
    )


@given(
    count=st.integers(1, 100_000),
    space=st.integers(1, 2**31).map(lambda it: it * 64 * KI),
    backing=st.sampled_from(Backing),
    kind=st.sampled_from(AllocationType),
    memory_pages=st.integers(1, 65536),
    memories=st.integers(1, 100),
    tables=st.integers(0, 100),
    functions=st.integers(0, 1_000_000),
)
def test_the_invariants_hold_for_whatever_is_taken(**given_: int) -> None:
    spec = pool(**given_)
    slot = spec.module_limits.memories * spec.module_limits.memory_pages * 64 * KI
    if slot > spec.instance_limits.address_space_size:
        with pytest.raises(RegionError, match="addressSpaceSize"):
            region_shape(spec)
    elif slot * spec.instance_limits.count > MAX_REGION_BYTES:
        with pytest.raises(RegionError, match="count"):
            region_shape(spec)
    elif kind_takes_address_space(spec) and spec.instance_limits.count * spec.module_limits.memories > 21_591:
        # A guarded slot is rounded up to whole pages: of 1 GiB, that may be too much for a region as well.
        with pytest.raises(RegionError, match=r"address space|\(128Ti\) on each node"):
            region_shape(spec)
    else:
        try:
            shape = region_shape(spec)
        except RegionError:
            assert spec.instance_limits.guarded, "only rounding up may make it too large"
        else:
            assert_region_layout_invariants(spec, shape)


@pytest.mark.parametrize(
    ("spec", "shape"),
    [
        (
            pool(16, 2 * GI, memory_pages=32),
            RegionShape(Backing.HUGE_PAGES_2MI, 2 * MI, 2 * MI, 16, 32 * MI, guarded=False),
        ),
        (  # 3 slots of 64 KiB lie in one huge page
            pool(3, 2 * GI, memory_pages=1),
            RegionShape(Backing.HUGE_PAGES_2MI, 2 * MI, 64 * KI, 3, 2 * MI, guarded=False),
        ),
        (  # and each takes one of its own where it is guarded
            pool(3, memory_pages=1),
            RegionShape(Backing.HUGE_PAGES_2MI, 2 * MI, 2 * MI, 3, 6 * MI, guarded=True),
        ),
        (
            pool(256),
            RegionShape(Backing.HUGE_PAGES_2MI, 2 * MI, 10 * MI, 256, 2560 * MI, guarded=True),
        ),
        (
            pool(2, backing=Backing.HUGE_PAGES_1GI, memories=2, memory_pages=16385),
            RegionShape(Backing.HUGE_PAGES_1GI, GI, 4 * GI, 2, 8 * GI, guarded=True),
        ),
        (
            pool(8, backing=Backing.BASE_PAGES, memory_pages=1),
            RegionShape(Backing.BASE_PAGES, 4 * KI, 64 * KI, 8, 512 * KI, guarded=False),
        ),
        (
            pool(8, kind=AllocationType.ON_DEMAND, memory_pages=1),
            RegionShape(Backing.BASE_PAGES, 4 * KI, 64 * KI, 8, 512 * KI, guarded=False),
        ),
    ],
)
def test_regions_by_hand(spec: InstancePoolSpec, shape: RegionShape) -> None:
    assert region_shape(spec) == shape


def test_a_region_that_fell_back_has_base_pages() -> None:
    assert region_shape(pool(3, memory_pages=1), Backing.BASE_PAGES) == RegionShape(
        Backing.BASE_PAGES, 4 * KI, 64 * KI, 3, 192 * KI, guarded=False
    )


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (pool(0), "spec.instanceLimits.count is 0, 1 to 100000 is allowed"),
        (pool(100_001), "spec.instanceLimits.count is 100001, 1 to 100000 is allowed"),
        (pool(memories=0), "spec.moduleLimits.memories is 0, 1 to 100 is allowed"),
        (pool(memory_pages=0), "spec.moduleLimits.memoryPages is 0, 1 to 65536 is allowed"),
        (pool(memory_pages=65537), "spec.moduleLimits.memoryPages is 65537, 1 to 65536 is allowed"),
        (pool(functions=-1), "spec.moduleLimits.functions is -1, 0 to 1000000 is allowed"),
        (with_spec({"runtime": {"workers": -5}}), "spec.runtime.workers is -5, 0 to 1024 is allowed"),
        (with_spec({"componentLimits": {"tables": 10001}}), "spec.componentLimits.tables is 10001, 0 to 10000 is"),
        (
            with_spec({"tenancy": {"quotas": [{"namespaceSelector": {}, "slots": -1}]}}),
            "spec.tenancy.quotas[0].slots is -1, 0 to 2147483647 is allowed",
        ),
        (
            with_spec({"runtime": {"requestDeadline": "0s"}}),
            "spec.runtime.requestDeadline is 0s, more than 0s, to 24h, is allowed",
        ),
        (
            with_spec({"runtime": {"requestDeadline": "24h1s"}}),
            "spec.runtime.requestDeadline is 86401s, more than 0s, to 24h, is allowed",
        ),
        (
            pool(space=0),
            "spec.instanceLimits.addressSpaceSize: 0 is given; allowed is a multiple of 64Ki, from 64Ki to 128Ti",
        ),
        (pool(space=65537), "spec.instanceLimits.addressSpaceSize: 65537 is given; allowed is a multiple of 64Ki"),
        (
            pool(space=8 * MI),
            "spec.instanceLimits.addressSpaceSize: 8Mi is given; allowed is 10Mi or more, which is what a slot of "
            "memories 1 with memoryPages 160 takes",
        ),
        (
            pool(100_000, kind=AllocationType.ON_DEMAND, memory_pages=65536),
            "spec.instanceLimits.count: 100000 slots of 4294967296 bytes is given; allowed is a region of "
            "140737488355328 bytes (128Ti) on each node",
        ),
        (
            pool(100_000),
            "spec.instanceLimits.count: 100000 with 1 memories, 4339007488 bytes of address space for each memory, is "
            "given; allowed is 1 to 21539: lower count, or set addressSpaceSize below 4Gi for compact slots",
        ),
        (
            pool(20_000, backing=Backing.HUGE_PAGES_1GI, memory_pages=1),
            "spec.instanceLimits.count: 20000 with 1 memories, 6442450944 bytes of address space for each memory, is "
            "given; allowed is 1 to 14506: ",
        ),
        (
            pool(10_000, 2 * GI, Backing.BASE_PAGES, memories=3),
            "spec.instanceLimits.count: 10000 with 3 memories, 4328521728 bytes of address space for each memory, is "
            "given; allowed is 1 to 7197: lower count, or take huge pages without a fallback and addressSpaceSize "
            "below 4Gi",
        ),
        (
            with_spec(
                {
                    "instanceLimits": {"count": 10_000, "addressSpaceSize": "2Gi"},
                    "allocation": {"fallback": "BasePages"},
                    "componentLimits": {"memories": 3},
                }
            ),
            "spec.instanceLimits.count: 10000 with 3 memories, 4328521728 bytes",
        ),
    ],
)
def test_what_makes_no_region_is_refused_by_field_with_numbers(spec: InstancePoolSpec, message: str) -> None:
    with pytest.raises(RegionError) as caught:
        region_shape(spec)
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize("index", [-1, 3])
def test_a_slot_that_is_not_there_has_no_offset(index: int) -> None:
    with pytest.raises(IndexError, match=rf"slot {index}: the region has 3, from 0 to 2"):
        region_shape(pool(3)).slot_offset(index)


def test_the_overhead_is_what_its_formula_says() -> None:
    limits = {
        "memories": 2,
        "memory_pages": 40,
        "tables": 3,
        "table_elements": 100,
        "imported_functions": 5,
        "globals": 7,
        "functions": 11,
    }
    each = 3 * 100 * 8 + 5 * 32 + 7 * 16 + 11 * 32 + 64 * KI + 256 * KI
    compact = pool(10, 2 * GI, **limits)
    assert overhead_bytes_per_node(compact, region_shape(compact)) == 10 * each
    guarded = pool(10, **limits)
    tail = 2 * (2 * MI - 64 * KI)
    assert overhead_bytes_per_node(guarded, region_shape(guarded)) == 10 * (each + tail)


def test_a_memory_that_can_not_grow_has_no_tail() -> None:
    spec = pool(10, memory_pages=1)
    compact = pool(10, 2 * GI, memory_pages=1)
    assert overhead_bytes_per_node(spec, region_shape(spec)) == overhead_bytes_per_node(compact, region_shape(compact))


def test_what_the_api_server_takes_makes_a_region() -> None:
    """The largest of everything that the schema allows together is refused by a rule there, and here by RegionError."""
    spec = decode(
        InstancePoolSpec,
        {
            "instanceLimits": {"count": 32768, "addressSpaceSize": "128Ti"},
            "allocation": {"type": "OnDemand"},
            "moduleLimits": {"memoryPages": 65536, "tables": 100, "tableElements": 10_000_000, "functions": 1_000_000},
        },
    )
    shape = region_shape(spec)
    assert shape.region_bytes == MAX_REGION_BYTES
    assert_region_layout_invariants(spec, shape)
    with pytest.raises(RegionError):
        region_shape(msgspec.structs.replace(spec, instance_limits=InstanceLimits(count=32769)))


@pytest.mark.parametrize(
    "spec", [pool(21_539), pool(21_591, backing=Backing.BASE_PAGES), pool(100_000, 2 * GI), pool(100, memories=100)]
)
def test_the_largest_counts_are_taken(spec: InstancePoolSpec) -> None:
    assert region_shape(spec).slots == spec.instance_limits.count


def test_address_space_is_counted_as_the_native_part_takes_it() -> None:
    assert MEMORY_ADDRESS_SPACE_BYTES == _native.GUARDED_RESERVATION_BYTES + _native.GUARDED_GUARD_BYTES
