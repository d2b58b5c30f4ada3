"""Start functions as exports. Pure: a core module in, a module that waits to be started out.

A store whose guests can be suspended instantiates nothing but in a future. One whose modules have no start function is
instantiated before that, at once, and what would have run then is called after it.
"""

from typing import Final

from wasmpool_agent.wasm_encoding import section, string, unsigned
from wasmpool_api.wasm.reader import Reader

_EXPORT, _START, _ELEMENT, _HEADER_BYTES = 7, 8, 9, 8
_BEHIND_EXPORTS: Final = frozenset({8, 9, 10, 11, 12})


def export_start(wasm: bytes, label: str) -> bytes:
    """The module with its start function exported under `label` instead. It must have been read without errors."""
    reader = Reader(wasm, _HEADER_BYTES)
    parts: list[bytes] = [wasm[:_HEADER_BYTES]]
    exports: tuple[int, bytes] = (0, b"")
    place = -1
    start = b""
    while reader.remaining:
        begin = reader.position
        number = reader.byte("a section")
        body = reader.section("a section")
        if number == _START:
            start = wasm[body.position : body.end]
        elif number == _EXPORT:
            count = body.u32("exports")
            exports = (count, wasm[body.position : body.end])
            place = len(parts)
        else:
            if number in _BEHIND_EXPORTS and place < 0:
                place = len(parts)
            parts.append(wasm[begin : reader.position])
    content = unsigned(exports[0] + 1) + exports[1] + string(label) + b"\0" + start
    made = section(_EXPORT, content)
    place = len(parts) if place < 0 else place
    return b"".join((*parts[:place], made, *parts[place:]))
