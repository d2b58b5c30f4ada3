"""What the demo prints: headings, commands as a person would type them, their output; and the same into a record."""

import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

_WIDTH: Final = 100


class StepError(Exception):
    """Something that the demo was about to show is not so. The message says what was expected and what was seen."""


@dataclass
class Console:
    """Prints to stdout and, without colours and timings, to `record` where one is given.

    `path`: directories put in front of PATH for the commands, so that they run as they are shown.
    """

    record: Path | None = None
    path: Sequence[Path] = ()
    environment: Mapping[str, str] = field(default_factory=dict[str, str])
    cwd: Path = field(default_factory=Path.cwd)
    _started: float = field(default_factory=time.monotonic)
    _recording: bool = False

    def __post_init__(self) -> None:
        if self.record is not None:
            self.record.parent.mkdir(parents=True, exist_ok=True)
            self.record.write_text("")

    def recording(self, on: bool) -> None:
        """What follows goes to the record, or no longer does."""
        self._recording = on

    def heading(self, text: str) -> None:
        """A new part of the demo."""
        elapsed = f"{time.monotonic() - self._started:.0f} s"
        line = f"== {text} "
        self._print(f"\n{_bold(line + '=' * max(0, _WIDTH - len(line) - len(elapsed) - 1))} {elapsed}\n")

    def say(self, text: str) -> None:
        """A sentence or a few for the reader."""
        self._print(f"{text}\n")

    def checked(self, text: str) -> None:
        """A fact that was just verified."""
        self._print(f"{_green('✓')} {text}\n")

    def shell(self, command: str, *, timeout: float = 120, show: bool = True, expect: int = 0) -> str:
        """Runs `command` with bash as it stands, shows it and its output, and returns its stdout.

        Raises StepError where its exit code is not `expect` or it takes longer than `timeout` seconds.
        """
        if show:
            self._emit(f"$ {command}\n")
        code, out, err = self.run(["bash", "-o", "pipefail", "-c", command], timeout=timeout)
        if show:
            self._emit(out)
            self._print(err)
        if code != expect:
            raise StepError(f"`{command}` left with exit code {code}, {expect} was expected:\n{out}{err}".rstrip())
        if show:
            self._emit("\n")
        return out

    def run(self, command: Sequence[str], *, timeout: float = 120) -> tuple[int, str, str]:
        """Exit code, stdout and stderr of `command`; nothing is shown. Raises StepError at the timeout."""
        env = {**os.environ, **self.environment}
        env["PATH"] = os.pathsep.join([*(str(part) for part in self.path), env.get("PATH", "")])
        try:
            done = subprocess.run(
                command,
                cwd=self.cwd,
                env=env,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=timeout,
                check=False,
            )
        except subprocess.TimeoutExpired as expired:
            raise StepError(f"`{' '.join(command)}` did not end within {timeout:.0f} s") from expired
        return done.returncode, done.stdout, done.stderr

    def _emit(self, text: str) -> None:
        self._print(text)
        if self.record is not None and self._recording:
            with self.record.open("a") as record:
                record.write(text)

    def _print(self, text: str) -> None:
        sys.stdout.write(text)
        sys.stdout.flush()


def _bold(text: str) -> str:
    return f"\x1b[1m{text}\x1b[0m" if sys.stdout.isatty() else text


def _green(text: str) -> str:
    return f"\x1b[32m{text}\x1b[0m" if sys.stdout.isatty() else text
