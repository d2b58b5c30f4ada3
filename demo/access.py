"""How the demo reaches a cluster: directories to put on PATH, so that the commands run exactly as they are shown."""

import shlex
import stat
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from demo.console import StepError

ROOT: Final = Path(__file__).resolve().parent.parent
OWN_BIN: Final = ROOT / ".out" / "demo" / "bin"
RELEASE: Final = "wasmpool"
SYSTEM_NAMESPACE: Final = "wasmpool-system"


@dataclass(frozen=True)
class Access:
    """`path`: directories with `kubectl` and `helm` for this cluster. `own`: the demo booted it and may stop it."""

    own: bool
    path: tuple[Path, ...]


def own_cluster() -> Access:
    """The cluster of `python -m tests.cluster`, which lives in network namespaces: its tools are called through it."""
    OWN_BIN.mkdir(parents=True, exist_ok=True)
    for tool in ("kubectl", "helm"):
        _write_wrapper(OWN_BIN / tool, [sys.executable, "-m", "tests.cluster", tool, "--"])
    return Access(own=True, path=(OWN_BIN, ROOT / ".venv" / "bin"))


def existing_cluster() -> Access:
    """The current context of the user's kubeconfig. Raises StepError where there is none, or no Helm."""
    for command in (["kubectl", "version", "--request-timeout=10s"], ["helm", "version"]):
        try:
            run = subprocess.run(command, capture_output=True, text=True, check=False)
        except FileNotFoundError as missing:
            raise StepError(f"CLUSTER=existing needs {command[0]} on PATH") from missing
        if run.returncode != 0:
            raise StepError(f"CLUSTER=existing: `{shlex.join(command)}` failed: {run.stderr.strip()}")
    return Access(own=False, path=())


def current_context() -> str:
    """Name of the kubeconfig's current context, or "(none)"."""
    try:
        run = subprocess.run(["kubectl", "config", "current-context"], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return "(none)"
    return run.stdout.strip() or "(none)"


def _write_wrapper(path: Path, command: list[str]) -> None:
    # NB: the cluster tool is a module of this checkout; relative paths in arguments are relative to it as well
    path.write_text(f'#!/bin/sh\ncd {shlex.quote(str(ROOT))} && exec {shlex.join(command)} "$@"\n')
    path.chmod(path.stat().st_mode | stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH)
