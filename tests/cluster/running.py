"""A cluster that is up, as tests and commands use it."""

import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from tests.cluster import binaries
from tests.cluster.client import Client, Credentials
from tests.cluster.console import ClusterError

STATE_FILE: Final = "cluster.json"


@dataclass(frozen=True)
class Running:
    """What `up` left in the state directory; all that is needed to use the cluster from any process."""

    state_dir: Path
    nodes: int
    server: str
    token: str
    huge_pages: int
    """Of the machine, shared out to the nodes in equal parts."""
    owner: int | None = None
    """Pid of the process with which it ends; None: it stays until `down`."""

    @property
    def kubeconfig(self) -> Path:
        """An administrator's, for any program on this machine."""
        return self.state_dir / "kubeconfig"

    @property
    def ca(self) -> Path:
        """Signed the API server's certificate."""
        return self.state_dir / "trust" / "ca.crt"

    @property
    def logs(self) -> Path:
        """One file for each process; those of nodes in a directory of their own."""
        return self.state_dir / "logs"

    @property
    def node_names(self) -> list[str]:
        """`node-1`, ..."""
        return [f"node-{number}" for number in range(1, self.nodes + 1)]

    def client(self, token: str | None = None) -> Client:
        """The API over HTTP, as the bearer of `token`, by default as administrator. Close it."""
        return Client(Credentials(self.server, self.ca, token or self.token))

    def kubectl(
        self, *arguments: str | Path, stdin: str | None = None, check: bool = True, timeout: float = 120
    ) -> subprocess.CompletedProcess[str]:
        """Raises ClusterError with kubectl's complaint, unless `check` is off."""
        return self.run([binaries.one("kubectl"), *arguments], stdin=stdin, check=check, timeout=timeout)

    def helm(
        self, *arguments: str | Path, check: bool = True, timeout: float = 300
    ) -> subprocess.CompletedProcess[str]:
        """As `kubectl`."""
        return self.run([binaries.one("helm"), *arguments], check=check, timeout=timeout)

    def run(
        self, command: Sequence[str | Path], *, stdin: str | None = None, check: bool = True, timeout: float = 120
    ) -> subprocess.CompletedProcess[str]:
        """Any program with KUBECONFIG set to this cluster's."""
        argv = [str(part) for part in command]
        done = subprocess.run(
            argv,
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
            env=self.environment(),
        )
        if check and done.returncode != 0:
            name = Path(argv[0]).name
            raise ClusterError(f"{name} {' '.join(argv[1:])}: exit {done.returncode}: {done.stderr.strip()}")
        return done

    def environment(self) -> Mapping[str, str]:
        """This process's, with KUBECONFIG."""
        return {**os.environ, "KUBECONFIG": str(self.kubeconfig)}


def save(running: Running) -> None:
    """Written last of all by `up`: a state directory without it holds no cluster that is up."""
    path = running.state_dir / STATE_FILE
    half_written = path.with_suffix(".new")
    half_written.touch(mode=0o600)
    half_written.write_text(json.dumps({**asdict(running), "state_dir": str(running.state_dir)}, indent=1) + "\n")
    half_written.replace(path)


def load(state_dir: Path) -> Running | None:
    """What was saved there, whether or not its processes still run."""
    try:
        saved: dict[str, Any] = json.loads((state_dir / STATE_FILE).read_text())
        saved["state_dir"] = state_dir
        return Running(**saved)
    except (FileNotFoundError, ValueError, TypeError):
        return None
