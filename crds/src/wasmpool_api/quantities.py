"""Kubernetes' textual amounts as value types: Quantity, Duration, IntOrPercent.

Each is parsed once, at the edge, and keeps no text; `str()` gives the canonical form back.
"""

import re
from decimal import Decimal
from fractions import Fraction
from typing import Final, Self

_BINARY = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40, "Pi": 2**50, "Ei": 2**60}
_DECIMAL = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "P": 10**15, "E": 10**18}
_QUANTITY = re.compile(r"(?P<number>[0-9]+(\.[0-9]*)?|\.[0-9]+)(?P<suffix>[KMGTPE]i|[kMGTPE]|)")
_DURATION = re.compile(
    r"((?P<h>[0-9]{1,8})h)?((?P<m>[0-9]{1,8})m)?((?P<s>[0-9]{1,12}(\.[0-9]{1,9})?)s)?((?P<ms>[0-9]{1,12})ms)?"
)
_LONGEST_SECONDS: Final = 10**12
_LONGEST_TEXT: Final = 32
"""As in the schemas. Nobody's text costs more than that."""
_PERCENT = re.compile(r"(?P<percent>100|[1-9]?[0-9])%")


class Quantity(int):
    """A whole number of bytes (or of things), 0 to 2^63 - 1, as Kubernetes writes it: 6Gi, 500M, 4096."""

    __slots__ = ()
    LARGEST: Final = 2**63 - 1

    @classmethod
    def parse(cls, text: str | int) -> Self:
        """Raises ValueError for anything that is not a whole non-negative quantity."""
        if isinstance(text, int):
            value = Fraction(text)
        else:
            match = _QUANTITY.fullmatch(text) if len(text) <= _LONGEST_TEXT else None
            if match is None:
                raise ValueError(f"{text[:40]!r} is not a quantity such as 6Gi, 500M or 4096")
            suffix = match["suffix"]
            value = Fraction(match["number"]) * _BINARY.get(suffix, _DECIMAL.get(suffix, 1))
        if value.denominator != 1:
            raise ValueError(f"{text!r} is not a whole number")
        if not 0 <= value <= cls.LARGEST:
            raise ValueError(
                f"{text!r} is not within 0 to {cls.LARGEST}; a quantity such as 6Gi, 500M or 4096 is wanted"
            )
        return cls(value.numerator)

    def __str__(self) -> str:
        for suffix, unit in reversed(_BINARY.items()):
            if self and self % unit == 0:
                return f"{self // unit}{suffix}"
        return int.__repr__(self)


class Duration(float):
    """Seconds, to the nanosecond, written as Go writes durations: 30s, 1m30s, 250ms."""

    __slots__ = ()

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raises ValueError for anything but hours, minutes, seconds and milliseconds in that order."""
        match = _DURATION.fullmatch(text) if 0 < len(text) <= _LONGEST_TEXT else None
        if match is None:
            raise ValueError(f"{text[:40]!r} is not a duration such as 30s, 1m30s or 250ms")
        hours, minutes, seconds, millis = (Decimal(match[part] or 0) for part in ("h", "m", "s", "ms"))
        total = hours * 3600 + minutes * 60 + seconds + millis / 1000
        if total >= _LONGEST_SECONDS:
            raise ValueError(f"{text[:40]!r} is not a duration such as 30s, 1m30s or 250ms: it is too long")
        return cls(total)

    def __str__(self) -> str:
        millis = round(self * 1000)
        if 0 < self < 1 and self == millis / 1000:
            return f"{millis}ms"
        # NB: not `:g`, which rounds to six digits and writes a million seconds as 1e+06.
        return f"{Decimal(repr(round(float(self), 9))).normalize():f}s"


class IntOrPercent:
    """A count (3) or a part of a whole ("25%"), as in a Deployment's maxUnavailable."""

    __slots__ = ("count", "percent")
    LARGEST_COUNT: Final = 2**31 - 1

    def __init__(self, *, count: int | None = None, percent: int | None = None) -> None:
        if (count is None) == (percent is None):
            raise ValueError("either a count or a percentage is wanted")
        self.count = count
        self.percent = percent

    @classmethod
    def parse(cls, value: str | int) -> Self:
        """Raises ValueError for negative counts and percentages outside 0% to 100%."""
        if isinstance(value, int):
            if not 0 <= value <= cls.LARGEST_COUNT:
                raise ValueError(f"{value} is not within 0 to {cls.LARGEST_COUNT}")
            return cls(count=value)
        match = _PERCENT.fullmatch(value)
        if match is None:
            raise ValueError(f"{value[:40]!r} is neither a whole number nor a percentage from 0% to 100%")
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
