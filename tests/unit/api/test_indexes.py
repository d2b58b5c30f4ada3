"""Covers: sets of indexes in little space, and that no text makes a large set out of nothing."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.crds.schemas import fields
from wasmpool_api.indexes import MAX_INDEX, IndexesError, format_indexes, parse_indexes


@pytest.mark.parametrize(
    ("text", "indexes"),
    [
        ("", set()),
        ("0", {0}),
        ("0-2,5", {0, 1, 2, 5}),
        ("0-41,43", set(range(42)) | {43}),
        ("7,9,11-12", {7, 9, 11, 12}),
        (f"{MAX_INDEX}", {MAX_INDEX}),
    ],
)
def test_a_text_stands_for_a_set(text: str, indexes: set[int]) -> None:
    assert parse_indexes(text) == indexes
    assert format_indexes(indexes) == text


@pytest.mark.parametrize(
    "text",
    [
        ",",
        "0,",
        "a",
        "-1",
        "0-",
        "1-0",
        "5,3",
        "3,3",
        "0-3,2",
        "0--1",
        "01",
        "0 ,1",
        "1-1000000",
        "9" * 30,
        "٣",
        "0-1-2",
    ],
)
def test_what_is_no_set_is_refused_with_the_part_that_is_wrong(text: str) -> None:
    with pytest.raises(IndexesError):
        parse_indexes(text)


def test_a_text_can_not_fill_the_memory() -> None:
    with pytest.raises(IndexesError, match=r"'0-99999999999': 99999999999 is given, 999999 is the largest"):
        parse_indexes("0-99999999999")
    with pytest.raises(IndexesError, match="9 is the largest"):
        parse_indexes("0-10", largest=9)


def test_a_negative_index_has_no_text() -> None:
    with pytest.raises(IndexesError):
        format_indexes([-1])


@given(st.sets(st.integers(0, 300)))
def test_a_set_written_and_read_again_is_the_same(indexes: set[int]) -> None:
    text = format_indexes(indexes)
    assert parse_indexes(text) == indexes
    assert format_indexes(parse_indexes(text)) == text


@given(st.text("0123456789,-", max_size=12))
def test_a_text_is_either_refused_or_a_set_with_a_text_of_its_own(text: str) -> None:
    try:
        indexes = parse_indexes(text)
    except IndexesError:
        return
    assert parse_indexes(format_indexes(indexes)) == indexes
    (pattern,) = (
        field.schema["pattern"] for field in fields("InstancePoolNode") if field.path == "spec.assignments[].indexes"
    )
    assert re.fullmatch(pattern, text), "the definition takes what is read here"
