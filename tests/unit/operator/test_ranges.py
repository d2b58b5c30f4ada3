"""Sets of indexes as ranges do what sets of numbers do, and read and write the same text."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wasmpool_api.indexes import IndexesError, format_indexes, parse_indexes
from wasmpool_operator.workload.ranges import Ranges

SETS = st.frozensets(st.integers(0, 40), max_size=30)


@given(one=SETS, other=SETS)
def test_they_count_unite_and_take_away_as_sets_do(one: frozenset[int], other: frozenset[int]) -> None:
    first, second = Ranges.of(one), Ranges.of(other)
    assert list(first) == sorted(one)
    assert len(first) == len(one)
    assert first | second == Ranges.of(one | other)
    assert first - second == Ranges.of(one - other)
    assert first & second == Ranges.of(one & other)


@given(indexes=SETS, total=st.integers(-1, 40))
def test_they_are_written_and_read_as_everywhere_else(indexes: frozenset[int], total: int) -> None:
    assert str(Ranges.of(indexes)) == format_indexes(indexes)
    assert Ranges.parse(format_indexes(indexes)) == Ranges.of(indexes)
    assert list(Ranges.below(total)) == list(range(total))


@given(text=st.text("0123456789-,", max_size=12) | st.sampled_from(["999999", "1000000", "0-1,2-3", "٣", "1 ", " "]))
def test_they_refuse_what_is_refused_everywhere_else(text: str) -> None:
    try:
        expected = parse_indexes(text)
    except IndexesError:
        with pytest.raises(IndexesError):
            Ranges.parse(text)
    else:
        assert Ranges.parse(text) == Ranges.of(expected)
