"""Where the cluster tool keeps its things. Nothing is written into the checkout."""

import os
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]
"""The checkout."""
GO_MODULES: Final = Path(__file__).resolve().parent / "go"


def cache_dir() -> Path:
    """For what can be made again but takes long: binaries, base images, wheels. Survives `down`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "wasmpool"


def default_state_dir() -> Path:
    """For what belongs to one running cluster. Removed by `down`, except for its logs."""
    chosen = os.environ.get("WASMPOOL_STATE_DIR")
    if chosen:
        return Path(chosen).absolute()
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "wasmpool" / "cluster"
