"""Kubernetes' textual amounts as value types: Quantity, Duration, IntOrPercent.

Each is parsed once, at the edge, and keeps no text; `str()` gives the canonical form back.
"""

import re
from decimal import Decimal
from typing import Self

_BINARY = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40, "Pi": 2**50, "Ei": 2**60}
_DECIMAL = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "P": 10**15, "E": 10**18}
_QUANTITY = re.compile(r"(?P<number>[0-9]+(\.[0-9]*)?|\.[0-9]+)(?P<suffix>[KMGTPE]i|[kMGTPE]|)")
_DURATION = re.compile(
    r"(?:(?P<h>[0-9]+)h)?(?:(?P<m>[0-9]+)m(?!s))?(?:(?P<s>[0-9]+(?:\.[0-9]+)?)s)?(?:(?P<ms>[0-9]+)ms)?"
)
_PERCENT = re.compile(r"(?P<percent>100|[1-9]?[0-9])%")


class Quantity(int):
    """A whole, non-negative number of bytes (or of things), as Kubernetes writes it: 6Gi, 500M, 4096."""

    __slots__ = ()

    @classmethod
    def parse(cls, text: str | int) -> Self:
        """Raises ValueError for anything that is not a whole non-negative quantity."""
        if isinstance(text, int):
            if text < 0:
                raise ValueError(f"{text} is negative; a quantity such as 6Gi, 500M or 4096 is wanted")
            return cls(text)
        match = _QUANTITY.fullmatch(text)
        if match is None:
            raise ValueError(f"{text!r} is not a quantity such as 6Gi, 500M or 4096")
        suffix = match["suffix"]
        value = Decimal(match["number"]) * _BINARY.get(suffix, _DECIMAL.get(suffix, 1))
        if value != value.to_integral_value():
            raise ValueError(f"{text!r} is not a whole number of bytes")
        return cls(value)

    def __str__(self) -> str:
        for suffix, unit in reversed(_BINARY.items()):
            if self and self % unit == 0:
                return f"{self // unit}{suffix}"
        return int.__repr__(self)


class Duration(float):
    """Seconds, written as Go writes durations: 30s, 1m30s, 250ms."""

    __slots__ = ()

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raises ValueError for anything but hours, minutes, seconds and milliseconds in that order."""
        match = _DURATION.fullmatch(text)
        if not text or match is None:
            raise ValueError(f"{text!r} is not a duration such as 30s, 1m30s or 250ms")
        hours, minutes, seconds, millis = (float(match[part] or 0) for part in ("h", "m", "s", "ms"))
        return cls(hours * 3600 + minutes * 60 + seconds + millis / 1000)

    def __str__(self) -> str:
        return f"{float(self):g}s" if self >= 1 or not self else f"{round(self * 1000)}ms"


class IntOrPercent:
    """A count (3) or a part of a whole ("25%"), as in a Deployment's maxUnavailable."""

    __slots__ = ("count", "percent")

    def __init__(self, *, count: int | None = None, percent: int | None = None) -> None:
        if (count is None) == (percent is None):
            raise ValueError("either a count or a percentage is wanted")
        self.count = count
        self.percent = percent

    @classmethod
    def parse(cls, value: str | int) -> Self:
        """Raises ValueError for negative counts and percentages outside 0% to 100%."""
        if isinstance(value, int):
            if value < 0:
                raise ValueError(f"{value} is negative")
            return cls(count=value)
        match = _PERCENT.fullmatch(value)
        if match is None:
            raise ValueError(f"{value!r} is neither a whole number nor a percentage from 0% to 100%")
        return cls(percent=int(match["percent"]))

    def of_rounded_down(self, whole: int) -> int:
        """The count that this is of `whole`, rounded down."""
        return self.count if self.count is not None else whole * (self.percent or 0) // 100

    def of_rounded_up(self, whole: int) -> int:
        """The count that this is of `whole`, rounded up."""
        return self.count if self.count is not None else -(-whole * (self.percent or 0) // 100)

    def to_builtin(self) -> str | int:
        """The value as it stands in YAML."""
        return self.count if self.count is not None else f"{self.percent}%"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, IntOrPercent) and (self.count, self.percent) == (other.count, other.percent)

    def __hash__(self) -> int:
        return hash((self.count, self.percent))

    def __repr__(self) -> str:
        return f"IntOrPercent({self.to_builtin()!r})"
