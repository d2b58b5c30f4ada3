"""wasi:http/types, fields: headers and trailers."""

import re
from collections.abc import Iterable, Sequence
from typing import Final

from wasmpool_agent.http.body import Field
from wasmpool_agent.http.head import FORBIDDEN
from wasmpool_agent.wasi.p2.host import Host
from wasmpool_agent.wasi.p2.registry import err, function, ok
from wasmpool_agent.wasmtime_async import HostTrap

FIELDS_MOST_BYTES: Final = 128 * 1024
"""Of names and values together."""
_NEVER: Final = FORBIDDEN | {"host"}
_NOT_IN_VALUES: Final = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_TOKEN: Final = frozenset("!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyz")
_HTTP: Final = "wasi:http/types#"
_FIELDS: Final = f"{_HTTP}[method]fields."

Result = tuple[bool, object]
"""As results are lifted."""


class Fields:
    """Names in lower case. `immutable`: those of a message that has come, or has been handed over."""

    __slots__ = ("_size", "entries", "immutable")

    def __init__(self, entries: Iterable[Field] = (), *, immutable: bool = False) -> None:
        self.entries = list(entries)
        self.immutable = immutable
        self._size = sum(len(name) + len(value) for name, value in self.entries)

    def add(self, name: str, values: Iterable[bytes]) -> None:
        """HostTrap where they become too many."""
        for value in values:
            self.entries.append((name.lower(), value))
            self._size += len(name) + len(value)
        if self._size > FIELDS_MOST_BYTES:
            raise HostTrap(f"fields of more than {FIELDS_MOST_BYTES} bytes")

    def remove(self, name: str) -> None:
        """All of that name."""
        lower = name.lower()
        self.entries = [it for it in self.entries if it[0] != lower]
        self._size = sum(len(key) + len(value) for key, value in self.entries)

    def named(self, name: str) -> list[bytes]:
        """Its values."""
        lower = name.lower()
        return [value for key, value in self.entries if key == lower]


def problem(name: str, values: Sequence[bytes]) -> str | None:
    """Why a guest may not set this, as header-error's case."""
    lower = name.lower()
    if not lower or not _TOKEN.issuperset(lower):
        return "invalid-syntax"
    if lower in _NEVER:
        return "forbidden"
    if any(_NOT_IN_VALUES.search(value) for value in values):  # a line end would begin another header
        return "invalid-syntax"
    if lower == "content-length" and not all(value.isdigit() and len(value) < 19 for value in values):
        return "invalid-syntax"
    return None


@function(f"{_HTTP}[constructor]fields")
def new_fields(_: Host) -> Fields:
    return Fields()


@function(f"{_HTTP}[static]fields.from-list")
def from_list(_: Host, entries: Sequence[tuple[str, bytes]]) -> Result:
    for name, value in entries:
        if (wrong := problem(name, [value])) is not None:
            return err((wrong, None))
    fields = Fields()
    for name, value in entries:
        fields.add(name, [value])
    return ok(fields)


@function(_FIELDS + "get")
def get(_: Host, fields: Fields, name: str) -> list[bytes]:
    return fields.named(name)


@function(_FIELDS + "has")
def has(_: Host, fields: Fields, name: str) -> bool:
    return bool(fields.named(name))


@function(_FIELDS + "set")
def set_values(_: Host, fields: Fields, name: str, values: Sequence[bytes]) -> Result:
    if (wrong := _refused(fields, name, values)) is not None:
        return err((wrong, None))
    fields.remove(name)
    fields.add(name, values)
    return ok()


@function(_FIELDS + "delete")
def delete(_: Host, fields: Fields, name: str) -> Result:
    if (wrong := _refused(fields, name, ())) is not None:
        return err((wrong, None))
    fields.remove(name)
    return ok()


@function(_FIELDS + "append")
def append(_: Host, fields: Fields, name: str, value: bytes) -> Result:
    if (wrong := _refused(fields, name, [value])) is not None:
        return err((wrong, None))
    fields.add(name, [value])
    return ok()


@function(_FIELDS + "entries")
def entries_of(_: Host, fields: Fields) -> list[Field]:
    return fields.entries


@function(_FIELDS + "clone")
def clone(_: Host, fields: Fields) -> Fields:
    return Fields(fields.entries)


def _refused(fields: Fields, name: str, values: Sequence[bytes]) -> str | None:
    return "immutable" if fields.immutable else problem(name, values)
