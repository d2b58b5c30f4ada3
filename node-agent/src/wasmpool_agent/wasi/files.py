"""Read-only file trees in memory, for guests of either WASI: what ConfigMaps and Secrets hold, under their mounts.

There are no links, so a path leads nowhere but downwards: `..` never leaves the tree that it began in.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

PATH_MOST_CHARS: Final = 4096


class PathError(Exception):
    """Nothing is there."""


class PathNotDirectoryError(PathError):
    """A part of the path is a file."""


class PathEscapesError(PathError):
    """The path is absolute, or leaves its tree."""


class PathTooLongError(PathError):
    """Longer than PATH_MOST_CHARS."""


@dataclass(frozen=True, slots=True)
class File:
    """`number`: unique among all files and trees of a guest."""

    content: bytes
    number: int


@dataclass(slots=True)
class Tree:
    """A directory: names to what they are, in the order of the names."""

    number: int
    entries: dict[str, "File | Tree"] = field(default_factory=dict[str, "File | Tree"])

    def find(self, path: str) -> "File | Tree":
        """What is at the path. Raises PathError."""
        if len(path) > PATH_MOST_CHARS:
            raise PathTooLongError
        if path.startswith("/"):
            raise PathEscapesError(path)
        if not path or "\0" in path:
            raise PathError(path)
        way: list[File | Tree] = [self]
        for part in path.split("/"):
            here = way[-1]
            if part in {"", "."}:
                if isinstance(here, File):
                    raise PathNotDirectoryError(path)  # a slash at its end, or `file/.`
                continue
            if not isinstance(here, Tree):
                raise PathNotDirectoryError(path)
            if part == "..":
                if len(way) == 1:
                    raise PathEscapesError(path)
                way.pop()
                continue
            found = here.entries.get(part)
            if found is None:
                raise PathError(path)
            way.append(found)
        return way[-1]


def trees(mounts: Mapping[str, Mapping[str, bytes]]) -> dict[str, Tree]:
    """From what is mounted where: path in the mount to content."""
    number = 0

    def next_number() -> int:
        nonlocal number
        number += 1
        return number

    found: dict[str, Tree] = {}
    for mount, files in mounts.items():
        root = found[mount] = Tree(next_number())
        # NB: part by part, for as text "a.b" stands before "a/b", and so would the names of the root.
        for (*directories, name), content in sorted((path.split("/"), content) for path, content in files.items()):
            here = root
            for directory in directories:
                below = here.entries.setdefault(directory, Tree(next_number()))
                if not isinstance(below, Tree):
                    raise PathNotDirectoryError("/".join((*directories, name)))
                here = below
            here.entries[name] = File(content, next_number())
    return found
