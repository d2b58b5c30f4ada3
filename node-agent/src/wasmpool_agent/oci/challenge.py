"""What a registry asks to see, as WWW-Authenticate says it."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

MOST_CHARACTERS: Final = 8192
_WORD: Final = r"[A-Za-z0-9!#$%&'*+.^_`|~-]+"
_PARAMETER: Final = re.compile(rf"({_WORD})\s*=\s*(?:\"((?:[^\"\\]|\\.)*)\"|([^\s,\"]*))\s*(?:,\s*|$)")
_SCHEME: Final = re.compile(rf"({_WORD})(?:\s+|,\s*|$)")


@dataclass(frozen=True, slots=True)
class Challenge:
    """`scheme` in lower case, `parameters` by name in lower case."""

    scheme: str
    parameters: dict[str, str] = field(default_factory=dict[str, str])


def parse_challenges(headers: Iterable[str]) -> tuple[Challenge, ...]:
    """As far as they can be read; what follows something else is left out."""
    found: list[Challenge] = []
    for header in headers:
        text = header[:MOST_CHARACTERS].strip()
        position = 0
        while position < len(text):
            parameter = _PARAMETER.match(text, position)
            if parameter is not None and found:
                name, quoted, plain = parameter.groups()
                value = re.sub(r"\\(.)", r"\1", quoted) if quoted is not None else plain
                found[-1].parameters.setdefault(name.lower(), value)
                position = parameter.end()
                continue
            scheme = _SCHEME.match(text, position)
            if scheme is None:
                break
            found.append(Challenge(scheme[1].lower()))
            position = scheme.end()
    return tuple(found)
