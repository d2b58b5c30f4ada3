"""Covers: sizes that can't be negative, overflow or be taken for one another."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wasmpool_api.sizes import MAX_SIZE, ByteCount, HugePages, SizeError, Slots, WasmPages

SIZES = st.integers(0, 2**50)
TWO_MI = ByteCount(2 * 2**20)


@pytest.mark.parametrize("value", [-1, MAX_SIZE + 1])
def test_what_is_out_of_range_is_refused_with_the_range(value: int) -> None:
    for make in (ByteCount, WasmPages, Slots, lambda it: HugePages(it, TWO_MI)):
        with pytest.raises(SizeError, match=rf"{value} .*: from 0 to {MAX_SIZE} is allowed") as caught:
            make(value)
        assert caught.value.given == value


def test_what_would_overflow_is_refused() -> None:
    with pytest.raises(SizeError):
        ByteCount(MAX_SIZE) + ByteCount(1)
    with pytest.raises(SizeError):
        ByteCount(2**40) * 2**40
    with pytest.raises(SizeError):
        WasmPages(2**48).to_bytes()
    with pytest.raises(SizeError):
        Slots(2**40).of_bytes(ByteCount(2**40))
    with pytest.raises(SizeError):
        ByteCount(MAX_SIZE).rounded_up_to(ByteCount(4096))


def test_nothing_can_be_rounded_to_nothing() -> None:
    with pytest.raises(SizeError):
        ByteCount(1).rounded_up_to(ByteCount(0))


def test_different_sizes_are_different_things() -> None:
    assert ByteCount(1) != WasmPages(1)
    assert Slots(1) != ByteCount(1)
    assert ByteCount(1) < ByteCount(2)


@given(SIZES, st.integers(1, 2**30))
def test_rounding_up_adds_less_than_one_multiple(size: int, multiple: int) -> None:
    rounded = ByteCount(size).rounded_up_to(ByteCount(multiple))
    assert rounded.value % multiple == 0
    assert 0 <= rounded.value - size < multiple


@given(SIZES)
def test_pages_hold_what_they_were_made_for(size: int) -> None:
    for pages, each in (
        (WasmPages.of_rounded_up(ByteCount(size)), 65536),
        (HugePages.of_rounded_up(ByteCount(size), TWO_MI), 2**21),
    ):
        assert int(pages) * each == int(pages.to_bytes())
        assert 0 <= int(pages.to_bytes()) - size < each
