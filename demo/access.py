"""How the demo reaches a cluster: an environment in which the commands run exactly as they are shown."""

import shlex
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from demo.console import StepError

ROOT: Final = Path(__file__).resolve().parent.parent
OWN_BIN: Final = ROOT / ".out" / "demo" / "bin"
RELEASE: Final = "wasmpool"
SYSTEM_NAMESPACE: Final = "wasmpool-system"


@dataclass(frozen=True)
class Access:
    """How to reach a cluster: directories for PATH and further environment. `own`: the demo booted it."""

    own: bool
    path: tuple[Path, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict[str, str])
    tags: Mapping[str, str] = field(default_factory=dict[str, str])
    """Of the images `operator` and `agent`."""

    @property
    def exports(self) -> str:
        """For a person's shell; empty where nothing is needed."""
        directories = ":".join(str(part) for part in self.path)
        variables = [f"PATH={directories}:$PATH"] if directories else []
        variables += [f"{name}={value}" for name, value in self.environment.items()]
        return f"export {' '.join(variables)}" if variables else ""


def cluster_tool(*arguments: str) -> str:
    """stdout of `python -m tests.cluster`; what it says meanwhile goes to the terminal. Raises StepError."""
    run = subprocess.run(
        [sys.executable, "-m", "tests.cluster", *arguments],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    if run.returncode != 0:
        raise StepError(f"`python -m tests.cluster {shlex.join(arguments)}` left with exit code {run.returncode}")
    return run.stdout


def own_cluster() -> Access:
    """Boots the cluster of `python -m tests.cluster`, or finds it up, with today's images on it. Raises StepError."""
    cluster_tool("up")
    archives = [Path(line) for line in cluster_tool("images").splitlines()]
    tags = {name: tag for name, _, tag in (archive.stem.rpartition("-") for archive in archives)}
    OWN_BIN.mkdir(parents=True, exist_ok=True)
    for line in cluster_tool("build", "kubectl", "helm").splitlines():
        name, program = line.split(maxsplit=1)
        link = OWN_BIN / name
        link.unlink(missing_ok=True)
        link.symlink_to(program)
    kubeconfig = cluster_tool("kubeconfig").strip()
    return Access(own=True, path=(OWN_BIN,), environment={"KUBECONFIG": kubeconfig}, tags=tags)


def existing_cluster() -> Access:
    """The current context of the user's kubeconfig. Raises StepError where there is none, or no Helm."""
    for command in (["kubectl", "version", "--request-timeout=10s"], ["helm", "version"]):
        try:
            run = subprocess.run(command, capture_output=True, text=True, check=False)
        except FileNotFoundError as missing:
            raise StepError(f"CLUSTER=existing needs {command[0]} on PATH") from missing
        if run.returncode != 0:
            raise StepError(f"CLUSTER=existing: `{shlex.join(command)}` failed: {run.stderr.strip()}")
    return Access(own=False, tags={"operator": "dev", "agent": "dev"})


def current_context() -> str:
    """Name of the kubeconfig's current context, or "(none)"."""
    try:
        run = subprocess.run(["kubectl", "config", "current-context"], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return "(none)"
    return run.stdout.strip() or "(none)"
