"""What a host must provide, and what is provided, by the names of WIT: package, interface and version."""

import re
from typing import Final, NamedTuple

_INTERFACE: Final = re.compile(r"(?P<name>[^@=<>]+:[^@=<>]+/[^@=<>]+?)(?:@(?P<version>[^@]+))?")


class Interface(NamedTuple):
    """`name`: with its package, "wasi:http/types". `version`: "0.2.1", or empty where there is none."""

    name: str
    version: str = ""

    @classmethod
    def parse(cls, text: str) -> "Interface":
        """Of "wasi:http/types@0.2.1"; a name that is no interface's is taken as it is, without a version."""
        found = _INTERFACE.fullmatch(text)
        return cls(found["name"], found["version"] or "") if found else cls(text)

    def __str__(self) -> str:
        return f"{self.name}@{self.version}" if self.version else self.name
