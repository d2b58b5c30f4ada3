"""Processes that can be found again, whatever was killed in between: by what is in their environment.

Every process of a cluster carries the cluster's state directory and its own name. So `down` needs no pid file, and a
pid that was given to somebody else meanwhile is not mistaken for one of ours.
"""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.cluster.console import ClusterError

STATE_VARIABLE: Final = "WASMPOOL_CLUSTER_STATE"
NAME_VARIABLE: Final = "WASMPOOL_CLUSTER_PROCESS"
_DIE_WITH_PARENT: Final = ("setpriv", "--pdeathsig", "KILL")


@dataclass(frozen=True)
class Found:
    """A process of a cluster. `name`: as it was started, `node-1/kubelet` for example; children inherit it."""

    pid: int
    name: str
    program: str
    """Base name of its executable."""


def marked(state_dir: Path, name: str, environment: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment of a process of this cluster: what it is given beside PATH and HOME.

    Nothing of the user's: a proxy or a KUBECONFIG of theirs is not meant for these.
    """
    base = {
        "PATH": f"{os.environ.get('PATH', '')}:/usr/local/sbin:/usr/sbin:/sbin",
        "HOME": os.environ.get("HOME", "/"),
    }
    return {**base, **(environment or {}), STATE_VARIABLE: str(state_dir), NAME_VARIABLE: name}


def start(
    argv: Sequence[str | Path],
    *,
    state_dir: Path,
    name: str,
    log: Path,
    environment: Mapping[str, str] | None = None,
    owned: bool,
) -> int:
    """Start a process in a session of its own, with its output appended to `log`; its pid.

    `owned`: the kernel kills it when this process ends, however that happens.
    """
    command = [str(part) for part in ((*_DIE_WITH_PARENT, *argv) if owned else argv)]
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd="/",
            env=marked(state_dir, name, environment),
            start_new_session=True,
        )
    pid = process.pid
    # NB: nobody waits for it through Popen: is_alive reaps it, and init once this process has ended
    process.returncode = 0
    return pid


def all_of(state_dir: Path) -> list[Found]:
    """Every process of this cluster that is alive and ours to see."""
    return [found for pid in everyone() if (found := _look(pid, state_dir))]


def named(state_dir: Path, name: str, program: str | None = None) -> list[Found]:
    """Those with this name, and with this executable if it is given."""
    return [found for found in all_of(state_dir) if found.name == name and program in (None, found.program)]


def is_alive(pid: int) -> bool:
    """Whether it runs; a zombie does not. Reaps it if it is a dead child of this process."""
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rpartition(")")[2].split()[0] not in {"Z", "X"}


def kill(pids: Iterable[int], *, seconds: float = 10) -> None:
    """Kill these, and return when they are gone. Raises ClusterError if one is still there after `seconds`."""
    asked = list(pids)
    for pid in asked:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    wait_until_gone(asked, seconds=seconds)


def wait_until_gone(pids: Iterable[int], *, seconds: float = 10) -> None:
    """Return when none of these is alive. Raises ClusterError if one still is after `seconds`."""
    deadline = time.monotonic() + seconds
    left = list(pids)
    while left := [pid for pid in left if is_alive(pid)]:
        if time.monotonic() > deadline:
            raise ClusterError(f"processes {left} are still there after {seconds:.0f} s")
        time.sleep(0.02)


def tail(log: Path, lines: int = 15) -> str:
    """The end of a log, indented, for a message."""
    text = log.read_text(errors="replace") if log.exists() else "(there is no log)"
    return "\n".join(f"    {line[:400]}" for line in text.splitlines()[-lines:])


def everyone() -> Iterator[int]:
    """The pids of all processes, ours or not."""
    return (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdecimal())


def _look(pid: int, state_dir: Path) -> Found | None:
    try:
        raw = Path(f"/proc/{pid}/environ").read_bytes()
        # NB: most processes are not ours; don't decode what they have
        if f"{STATE_VARIABLE}={state_dir}\0".encode() not in raw + b"\0":
            return None
        program = Path(f"/proc/{pid}/exe").readlink().name
    except OSError:
        return None  # it ended meanwhile, or belongs to somebody else
    pairs = (entry.partition("=") for entry in raw.decode(errors="replace").split("\0"))
    return Found(pid, next((value for key, _, value in pairs if key == NAME_VARIABLE), ""), program)
