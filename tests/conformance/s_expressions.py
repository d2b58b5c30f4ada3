"""Reads the s-expressions of test scripts. Keeps where each lies: modules are handed on as the text they are."""

import re
from dataclasses import dataclass, field
from typing import Final

_TOKEN: Final = re.compile(rb'\s+|;;[^\n]*|\(;|"(?:[^"\\]|\\.)*"|[()]|[^\s()";]+|[;"]', re.DOTALL)
_ESCAPE: Final = re.compile(rb"\\(?:u\{([0-9a-fA-F_]+)\}|([0-9a-fA-F]{2})|(.))", re.DOTALL)
_NAMED: Final = {b"n": b"\n", b"r": b"\r", b"t": b"\t"}


@dataclass(slots=True)
class Form:
    """What is between two parentheses, at text[start:end]. Words are str, strings are bytes with escapes resolved."""

    start: int
    end: int = 0
    items: "list[Form | str | bytes]" = field(default_factory=list["Form | str | bytes"])

    @property
    def head(self) -> str:
        """Its first word, or nothing."""
        return first if self.items and isinstance(first := self.items[0], str) else ""


def _resolved(match: re.Match[bytes]) -> bytes:
    point, byte, named = match.groups()
    if point is not None:
        return chr(int(point.replace(b"_", b""), 16)).encode()
    return bytes([int(byte, 16)]) if byte is not None else _NAMED.get(named, named)


def _end_of_comment(text: bytes, at: int) -> int:
    """Block comments nest. `at`: behind the first opening."""
    depth = 1
    while depth:
        opening, closing = text.find(b"(;", at), text.find(b";)", at)
        if closing < 0:
            raise ValueError(f"the comment before byte {at} does not end")
        if 0 <= opening < closing:
            depth, at = depth + 1, opening + 2
        else:
            depth, at = depth - 1, closing + 2
    return at


def read(text: bytes) -> list[Form]:
    """The forms at the top, annotations left out. Raises ValueError."""
    top = Form(0)
    stack, at = [top], 0
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            raise ValueError(f"no token at byte {at}")
        token, at = match.group(), match.end()
        if token == b"(;":
            at = _end_of_comment(text, at)
        elif token == b"(":
            stack.append(Form(match.start()))
        elif token == b")":
            form = stack.pop()
            form.end = at
            if not form.head.startswith("@"):
                stack[-1].items.append(form)
        elif token[:1] == b'"':
            stack[-1].items.append(_ESCAPE.sub(_resolved, token[1:-1]))
        elif not token.isspace() and not token.startswith(b";;"):
            stack[-1].items.append(token.decode())
    if len(stack) != 1:
        raise ValueError("a parenthesis is not closed")
    return [item for item in top.items if isinstance(item, Form)]
