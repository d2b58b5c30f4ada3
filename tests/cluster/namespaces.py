"""Linux namespaces that hold a part of the cluster: the control plane, or a node. Needs root.

Each is held by an init of its own. When that ends, the kernel ends every process in its pid namespace, and with the
last process the mounts and the network of the namespace are gone as well: nothing of it has a name outside.
"""

import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.cluster import processes
from tests.cluster.console import ClusterError

_UNSHARE: Final = (
    *("unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--propagation", "private"),
)
_INIT: Final = Path(__file__).with_name("init.py")
# In a shell without job control a background process leads no group, so setsid does not fork: it becomes the program.
_DETACH: Final = 'exec setsid "$@" </dev/null >>"$0" 2>&1'


@dataclass(frozen=True)
class Namespace:
    """One that is alive. `init`: the pid of its init, as this process sees it."""

    state_dir: Path
    name: str
    init: int

    def enter(self, argv: Sequence[str | Path], *, kinds: str = "mpn") -> list[str]:
        """The command that runs `argv` in there; `kinds`: m(ount), p(id), n(et), of which to enter."""
        return ["nsenter", f"--target={self.init}", *(f"-{kind}" for kind in kinds), "--", *(str(it) for it in argv)]

    def run(
        self, argv: Sequence[str | Path], *, stdin: str | None = None, timeout: float = 60, kinds: str = "mpn"
    ) -> str:
        """Run a command to its end; its output. Raises ClusterError with its complaint."""
        done = subprocess.run(
            self.enter(argv, kinds=kinds),
            input=stdin,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
            cwd="/",
        )
        if done.returncode != 0:
            command = " ".join(str(it) for it in argv)
            raise ClusterError(
                f"in {self.name}: {command}: exit {done.returncode}: {(done.stderr or done.stdout).strip()}"
            )
        return done.stdout

    def start(
        self,
        program: str,
        argv: Sequence[str | Path],
        *,
        log: Path,
        environment: Mapping[str, str],
        descriptors: Sequence[int] = (),
    ) -> None:
        """Start a process that stays, a child of the namespace's init; its output is appended to `log`, and it inherits
        `descriptors`."""
        log.parent.mkdir(parents=True, exist_ok=True)
        detached = ["sh", "-c", f"{_DETACH} &", str(log), *argv]
        done = subprocess.run(
            self.enter(detached),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
            cwd="/",
            pass_fds=tuple(descriptors),
            env=processes.marked(self.state_dir, f"{self.name}/{program}", environment),
        )
        if done.returncode != 0:
            raise ClusterError(f"in {self.name}: {program} could not be started: {done.stderr.strip()}")

    def is_alive(self) -> bool:
        """Whether its init runs."""
        return processes.is_alive(self.init)

    def end(self) -> None:
        """Kill its init, and wait until everything in it is gone. Idempotent."""
        identity = _pid_namespace(self.init)
        inside = [pid for pid in processes.everyone() if identity and _pid_namespace(pid) == identity]
        processes.kill([self.init])
        processes.wait_until_gone(inside)


def hold(state_dir: Path, name: str, *, log: Path, owned: bool) -> Namespace:
    """Make new mount, pid and network namespaces. `owned`: they end with this process."""
    python = [sys.executable, "-I", "-S", str(_INIT)]
    unshare = processes.start([*_UNSHARE, *python], state_dir=state_dir, name=f"{name}/init", log=log, owned=owned)
    deadline = time.monotonic() + 10
    while True:
        init = _child(unshare)
        if init is not None and str(_INIT) in _command(init):
            return Namespace(state_dir, name, init)
        if not processes.is_alive(unshare) or time.monotonic() > deadline:
            raise ClusterError(f"no namespaces for {name}: {processes.tail(log)}")
        time.sleep(0.01)


def find(state_dir: Path, name: str) -> Namespace | None:
    """The namespace of this name, if it is alive."""
    for found in processes.named(state_dir, f"{name}/init"):
        if found.program != "unshare" and str(_INIT) in _command(found.pid):
            return Namespace(state_dir, name, found.pid)
    return None


def _child(pid: int) -> int | None:
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return None
    return int(children[0]) if children else None


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
    except OSError:
        return ""


def _pid_namespace(pid: int) -> str:
    try:
        return str(Path(f"/proc/{pid}/ns/pid").readlink())
    except OSError:
        return ""
