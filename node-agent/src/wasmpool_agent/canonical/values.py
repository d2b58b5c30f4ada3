"""What has no Python type of its own."""

from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")


class Unsupported(Exception):  # noqa: N818 - what the component is, for this host
    """Another host may take this component; this one does not. The message says why."""


@dataclass(frozen=True, slots=True)
class Some(Generic[T]):
    """The outer `some` of an option of an option."""

    value: T


@dataclass(frozen=True, slots=True, eq=False)
class GuestResource:
    """A resource that the component itself defines. `rep` is what it means to the component; `type` which one it is."""

    type: int
    rep: int
