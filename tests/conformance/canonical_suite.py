"""The Component Model's own tests: fetched once with cargo, kept outside the checkout, every file checked by its hash.

python -m tests.conformance.canonical_suite            fetches them, if they are not there, and says where they are
python -m tests.conformance.canonical_suite --pin      writes MANIFEST.sha256 anew, after a change of Cargo.toml
"""

import argparse
import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Final

from tests.conformance.testsuite import NoCargoError, TestsuiteError

PROJECT: Final = Path(__file__).parent / "canonical_crate"
MANIFEST: Final = PROJECT / "MANIFEST.sha256"
FOLDERS: Final = ("values", "resources", "linking", "binary", "validation")
"""Those beside async."""


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def manifest() -> dict[str, str]:
    """Path in the suite to hash."""
    return {path: digest for digest, path in (line.split() for line in MANIFEST.read_text("ascii").splitlines())}


def _vendor(into: Path) -> Path:
    """Has cargo fetch the crate; returns the folder of its scripts. Raises TestsuiteError."""
    cargo = shutil.which("cargo")
    if cargo is None:
        raise NoCargoError("the Component Model's tests are in a Rust crate: cargo, 1.85 or later, is not installed")
    project = into / "project"
    shutil.copytree(PROJECT, project)
    command = (cargo, "vendor", "--quiet", "--versioned-dirs", str(into / "vendor"))
    done = subprocess.run(command, cwd=project, capture_output=True, text=True, check=False, timeout=600)
    if done.returncode != 0:
        raise TestsuiteError(
            f"the Component Model's tests could not be had; `cargo vendor` says: {done.stderr.strip()}"
        )
    (data,) = (into / "vendor").glob("wasm-tools-*/tests/component-model/test")
    return data


def fetch() -> Path:
    """Where the suite is; fetches it if it is not. Raises TestsuiteError."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = cache / "wasmpool" / "component-tests" / _digest(MANIFEST.read_bytes())[:16]
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        data = _vendor(Path(scratch))
        chosen = Path(scratch) / "chosen"
        for path in manifest():
            target = chosen / path
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(data / path, target)
        try:
            chosen.rename(folder)
        except OSError:
            if not folder.is_dir():  # else somebody else was quicker
                raise
    return folder


def script(path: str) -> bytes:
    """One of the manifest's. Raises TestsuiteError."""
    folder = fetch()
    content = (folder / path).read_bytes()
    if _digest(content) != manifest()[path]:
        raise TestsuiteError(f"{folder / path} is not what MANIFEST.sha256 names; remove {folder} to fetch it anew")
    return content


def pin() -> int:
    """Writes the manifest from what cargo fetches now, and counts its files."""
    with tempfile.TemporaryDirectory() as scratch:
        data = _vendor(Path(scratch))
        paths = [path for folder in FOLDERS for path in sorted(data.glob(f"{folder}/*.wast"))]
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
