"""Which indexes were begun on this node and how they ended, durably: written before a guest starts.

One file per claim; one line per event: `begun 3`, `completed 3`, `failed 3`. A line that a crash has cut short is
ignored: it was never acted on. With it, no `Never` index runs twice when the agent's process is replaced.
"""

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from wasmpool_agent.supervisor.promises import ClaimKey

_DIRECTORY: Final = "runs"


@dataclass(slots=True)
class Record:
    """Sets of indexes. Invariant: completed and failed are subsets of begun, and disjoint."""

    begun: set[int] = field(default_factory=set[int])
    completed: set[int] = field(default_factory=set[int])
    failed: set[int] = field(default_factory=set[int])

    @property
    def lost(self) -> frozenset[int]:
        """Begun, and nobody knows how they ended."""
        return frozenset(self.begun - self.completed - self.failed)


class Journal:
    """The files of one cache directory. Raises OSError where the disk does."""

    def __init__(self, cache: Path) -> None:
        self._directory = cache / _DIRECTORY
        self._directory.mkdir(parents=True, exist_ok=True)

    def read(self, key: ClaimKey) -> Record:
        """What is known of the claim; nothing, where there is no file."""
        try:
            text = self._path(key).read_text(encoding="ascii", errors="replace")
        except FileNotFoundError:
            return Record()
        record = Record()
        for line in text.split("\n")[:-1]:  # what follows the last line break is cut short
            event, _, index = line.partition(" ")
            if not (index.isascii() and index.isdigit()):
                continue
            if event == "begun":
                record.begun.add(int(index))
            elif event == "completed":
                record.completed.add(int(index))
            elif event == "failed":
                record.failed.add(int(index))
        record.begun |= record.completed | record.failed
        record.failed -= record.completed
        return record

    def begun(self, key: ClaimKey, *indexes: int) -> None:
        """Returns when it is on the disk. Call it before the guests start."""
        self._append(key, "".join(f"begun {index}\n" for index in indexes), durable=True)

    def ended(self, key: ClaimKey, index: int, *, completed: bool) -> None:
        """Survives the end of this process. After a loss of power the run may count as lost, never as not begun."""
        self._append(key, f"{'completed' if completed else 'failed'} {index}\n", durable=False)

    def forget_before(self, timestamp: float, keep: set[ClaimKey]) -> None:
        """Removes what has not changed since then (seconds since 1970) and is not of these claims.

        NB: not all but these: a claim may be assigned again, and then what has begun must be known.
        """
        wanted = {self._path(key).name for key in keep}
        for path in self._directory.iterdir():
            if path.name not in wanted and path.stat().st_mtime < timestamp:
                path.unlink(missing_ok=True)

    def _append(self, key: ClaimKey, text: str, *, durable: bool) -> None:
        path = self._path(key)
        new = not path.exists()
        fd = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            size = os.fstat(fd).st_size
            cut_short = size > 0 and os.pread(fd, 1, size - 1) != b"\n"
            os.write(fd, (("\n" if cut_short else "") + text).encode("ascii"))
            if durable:
                os.fsync(fd)
        finally:
            os.close(fd)
        if new and durable:
            directory = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                os.fsync(directory)
            finally:
                os.close(directory)

    def _path(self, key: ClaimKey) -> Path:
        # NB: both come from the API; a name must not leave the directory.
        safe = "".join(letter if letter.isalnum() or letter in "-." else "_" for letter in f"{key.uid}_{key.revision}")
        return self._directory / safe.lstrip(".")
