"""wasi:http/types, fields: headers and trailers."""

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
_TOKEN: Final = frozenset("!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyz")
_HTTP: Final = "wasi:http/types#"
_FIELDS: Final = f"{_HTTP}[method]fields."


class Fields:
    """Names in lower case. `immutable`: those of a message that has come, or has been handed over."""

    __slots__ = ("entries", "immutable")

    def __init__(self, entries: Iterable[Field] = (), *, immutable: bool = False) -> None:
        self.entries = list(entries)
        self.immutable = immutable

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
    for value in values:
        # A line end in a value would be another header; spaces at its ends would be lost.
        if any((byte < 0x20 and byte != 0x09) or byte == 0x7F for byte in value) or value != value.strip(b" \t"):
            return "invalid-syntax"
    if lower == "content-length" and not all(value.isdigit() and len(value) < 19 for value in values):
        return "invalid-syntax"
    return None


@function(f"{_HTTP}[constructor]fields")
def new_fields(_: Host) -> Fields:
    return Fields()


@function(f"{_HTTP}[static]fields.from-list")
def from_list(_: Host, entries: Sequence[tuple[str, bytes]]) -> object:
    for name, value in entries:
        if (wrong := problem(name, [value])) is not None:
            return err((wrong, None))
    fields = Fields((name.lower(), value) for name, value in entries)
    _bounded(fields)
    return ok(fields)


@function(_FIELDS + "get")
def get(_: Host, fields: Fields, name: str) -> list[bytes]:
    return fields.named(name)


@function(_FIELDS + "has")
def has(_: Host, fields: Fields, name: str) -> bool:
    return bool(fields.named(name))


@function(_FIELDS + "set")
def set_values(_: Host, fields: Fields, name: str, values: Sequence[bytes]) -> object:
    if (wrong := _refused(fields, name, values)) is not None:
        return err((wrong, None))
    lower = name.lower()
    fields.entries = [it for it in fields.entries if it[0] != lower] + [(lower, value) for value in values]
    _bounded(fields)
    return ok()


@function(_FIELDS + "delete")
def delete(_: Host, fields: Fields, name: str) -> object:
    if (wrong := _refused(fields, name, ())) is not None:
        return err((wrong, None))
    lower = name.lower()
    fields.entries = [it for it in fields.entries if it[0] != lower]
    return ok()


@function(_FIELDS + "append")
def append(_: Host, fields: Fields, name: str, value: bytes) -> object:
    if (wrong := _refused(fields, name, [value])) is not None:
        return err((wrong, None))
    fields.entries.append((name.lower(), value))
    _bounded(fields)
    return ok()


@function(_FIELDS + "entries")
def entries_of(_: Host, fields: Fields) -> list[Field]:
    return fields.entries


@function(_FIELDS + "clone")
def clone(_: Host, fields: Fields) -> Fields:
    return Fields(fields.entries)


def _refused(fields: Fields, name: str, values: Sequence[bytes]) -> str | None:
    return "immutable" if fields.immutable else problem(name, values)


def _bounded(fields: Fields) -> None:
    if sum(len(name) + len(value) for name, value in fields.entries) > FIELDS_MOST_BYTES:
        raise HostTrap(f"fields of more than {FIELDS_MOST_BYTES} bytes")
