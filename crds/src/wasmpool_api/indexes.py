"""Sets of indexes in little space: {0, 1, 2, 5} is "0-2,5", as in a Job's completedIndexes."""

from collections.abc import Iterable
from typing import Final

MAX_INDEX: Final = 999_999


class IndexesError(ValueError):
    """The text is no set of indexes; the message has the part that is wrong."""


def parse_indexes(text: str, largest: int = MAX_INDEX) -> frozenset[int]:
    """The set that `text` stands for; the empty text is the empty set.

    Indexes are decimal, ascending, without spaces, and at most `largest`: a text of few bytes can't stand for a set
    that fills the memory. Raises IndexesError.
    """
    found: set[int] = set()
    previous = -1
    for part in text.split(",") if text else ():
        first_text, dash, last_text = part.partition("-")
        first = _index(first_text, part)
        last = _index(last_text, part) if dash else first
        if last > largest:
            raise IndexesError(f"{part!r}: {last} is given, {largest} is the largest index allowed")
        if first <= previous or last < first:
            raise IndexesError(f"{part!r}: indexes must ascend")
        found.update(range(first, last + 1))
        previous = last
    return frozenset(found)


def format_indexes(indexes: Iterable[int]) -> str:
    """The shortest text for the set: runs of two and more as a range. Raises IndexesError for a negative index."""
    ranges: list[tuple[int, int]] = []
    for index in sorted(set(indexes)):
        if index < 0:
            raise IndexesError(f"{index} is negative")
        if ranges and ranges[-1][1] == index - 1:
            ranges[-1] = (ranges[-1][0], index)
        else:
            ranges.append((index, index))
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in ranges)


def _index(text: str, part: str) -> int:
    # NB: str.isdigit also holds for digits of other scripts, which int() reads.
    if not (text.isascii() and text.isdigit()) or (len(text) > 1 and text.startswith("0")) or len(text) > 18:
        raise IndexesError(f"{part!r} is neither an index such as 43 nor a range such as 0-41")
    return int(text)
