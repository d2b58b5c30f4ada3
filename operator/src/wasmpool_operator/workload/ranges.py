"""Sets of indexes as ranges: a million runs of which all but a few are done cost a few numbers, not a million. Pure."""

import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Final

from wasmpool_api.indexes import MAX_INDEX, IndexesError

_PART = re.compile(r"(0|[1-9][0-9]{0,17})(?:-(0|[1-9][0-9]{0,17}))?")


@dataclass(frozen=True, slots=True)
class Ranges:
    """Invariant: `parts` are (first, last) pairs that ascend, and between two of them at least one index is missing."""

    parts: tuple[tuple[int, int], ...] = ()

    @classmethod
    def parse(cls, text: str) -> "Ranges":
        """Takes and refuses what `wasmpool_api.indexes.parse_indexes` does. Raises IndexesError."""
        parts: list[tuple[int, int]] = []
        for part in text.split(",") if text else ():
            match = _PART.fullmatch(part)
            if match is None:
                raise IndexesError(f"{part!r} is neither an index such as 43 nor a range such as 0-41")
            first, last = int(match[1]), int(match[2] or match[1])
            if last > MAX_INDEX:
                raise IndexesError(f"{part!r}: {last} is given, {MAX_INDEX} is the largest index allowed")
            if last < first or (parts and first <= parts[-1][1]):
                raise IndexesError(f"{part!r}: indexes must ascend")
            parts.append((first, last))
        return cls(_joined(parts))

    @classmethod
    def of(cls, indexes: Iterable[int]) -> "Ranges":
        """The set of these."""
        return cls(_joined((index, index) for index in sorted(indexes)))

    @classmethod
    def below(cls, total: int) -> "Ranges":
        """All from 0 to total - 1."""
        return cls(((0, total - 1),) if total > 0 else ())

    @classmethod
    def union(cls, sets: Iterable["Ranges"]) -> "Ranges":
        """Everything that is in any of them."""
        return cls(_joined(sorted(chain.from_iterable(it.parts for it in sets))))

    def __or__(self, other: "Ranges") -> "Ranges":
        return Ranges.union((self, other))

    def __sub__(self, other: "Ranges") -> "Ranges":
        left: list[tuple[int, int]] = []
        for first, last in self.parts:
            begin = first
            at = max(0, bisect_right(other.parts, first, key=lambda part: part[0]) - 1)
            while at < len(other.parts) and other.parts[at][0] <= last:
                if other.parts[at][0] > begin:
                    left.append((begin, other.parts[at][0] - 1))
                begin = max(begin, other.parts[at][1] + 1)
                at += 1
            if begin <= last:
                left.append((begin, last))
        return Ranges(tuple(left))

    def __and__(self, other: "Ranges") -> "Ranges":
        return self - (self - other)

    def __len__(self) -> int:
        return sum(last - first + 1 for first, last in self.parts)

    def __iter__(self) -> Iterator[int]:
        return chain.from_iterable(range(first, last + 1) for first, last in self.parts)

    def __str__(self) -> str:
        return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in self.parts)


NONE: Final = Ranges()
"""The empty set."""


def _joined(parts: Iterable[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    joined: list[tuple[int, int]] = []
    for first, last in parts:
        if joined and first <= joined[-1][1] + 1:
            joined[-1] = (joined[-1][0], max(joined[-1][1], last))
        else:
            joined.append((first, last))
    return tuple(joined)
