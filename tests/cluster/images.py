"""The project's images, built from its own Containerfiles on a Debian base that is made here: no registry is needed.

What an image is made from (Containerfile, locked requirements, our sources, the base) names its archive, so an image is
built again only after one of them changed.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.cluster import lifecycle
from tests.cluster.binaries import on_path
from tests.cluster.console import ClusterError, step
from tests.cluster.paths import ROOT, cache_dir
from tests.cluster.running import Running

BASE_PACKAGES: Final = ("python3", "ca-certificates")
_SUITE: Final = "bookworm"
_BUILDAH_ENVIRONMENT: Final = {"STORAGE_DRIVER": "vfs", "BUILDAH_ISOLATION": "chroot"}


@dataclass(frozen=True)
class Image:
    """`distributions`: of ours that it holds, as folders of the checkout, in the order in which they are installed."""

    name: str
    reference: str
    folder: str
    requirements: str
    distributions: tuple[str, ...]


OPERATOR: Final = Image("operator", "wasmpool.dev/operator:dev", "operator", "operator.txt", ("crds", "operator"))
AGENT: Final = Image("agent", "wasmpool.dev/agent:dev", "node-agent", "agent.txt", ("crds", "node-agent"))
IMAGES: Final = (OPERATOR, AGENT)


def build(image: Image) -> Path:
    """The image's OCI archive, built unless there is one of the same content. Raises ClusterError."""
    missing = [tool for tool in ("buildah", "mmdebstrap") if on_path(tool) is None]
    if missing:
        raise ClusterError(
            f"{', '.join(missing)}: not on this machine; scripts/install-system-packages.sh installs them"
        )
    base = _base()
    archive = cache_dir() / "images" / f"{image.name}-{_key(image, base)}.tar"
    if archive.exists():
        return archive
    archive.parent.mkdir(parents=True, exist_ok=True)
    with (
        step(f"image {image.reference} is built"),
        tempfile.TemporaryDirectory(prefix="wasmpool-image-") as directory,
    ):
        fill_context(image, Path(directory))
        half_written = archive.with_suffix(".new")
        half_written.unlink(missing_ok=True)
        _buildah("bud", "--layers", "--build-arg", f"BASE={base}", "--tag", image.reference, directory)
        _buildah("push", image.reference, f"oci-archive:{half_written}:{image.reference}")
        half_written.replace(archive)
    for old in archive.parent.glob(f"{image.name}-*.tar"):
        if old != archive:
            old.unlink()
    return archive


def install(found: Running, image: Image) -> str:
    """The image, built as it is now, on all nodes; the tag that stands for its content, beside the `dev` that moves."""
    archive = build(image)
    tag = archive.stem.removeprefix(f"{image.name}-")
    load(found, archive)
    for one in lifecycle.layout_of(found).every_node():
        names = (image.reference, f"{image.reference.rpartition(':')[0]}:{tag}")
        lifecycle.namespace(found, one.name).run(one.ctr("images", "tag", "--force", *names))
    return tag


def load(found: Running, archive: Path) -> None:
    """Puts an OCI archive where the kubelets of all nodes find it."""
    for one in lifecycle.layout_of(found).every_node():
        lifecycle.namespace(found, one.name).run(one.ctr("images", "import", str(archive)), timeout=300)


def _key(image: Image, base: str) -> str:
    digest = hashlib.sha256(base.encode())
    for path in (ROOT / image.folder / "Containerfile", ROOT / "requirements" / image.requirements, *_sources(image)):
        digest.update(str(path.relative_to(ROOT)).encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


def _sources(image: Image) -> Iterator[Path]:
    for folder in image.distributions:
        yield ROOT / folder / "pyproject.toml"
        for part in ("src", "native"):
            wanted = (path for path in (ROOT / folder / part).rglob("*") if path.is_file())
            yield from sorted(path for path in wanted if not _is_made(path))


def _is_made(path: Path) -> bool:
    return path.suffix in {".pyc", ".so", ".o"} or any(part.endswith(".egg-info") for part in path.parts)


def _base() -> str:
    """A Debian with nothing but Python; its reference in buildah's storage."""
    names = hashlib.sha256(" ".join((_SUITE, *BASE_PACKAGES)).encode()).hexdigest()[:12]
    reference = f"localhost/wasmpool-base:{names}"
    if _finished(["buildah", "inspect", "--type", "image", reference]).returncode == 0:
        return reference
    rootfs = cache_dir() / "images" / f"base-{names}.tar"
    if not rootfs.exists():
        rootfs.parent.mkdir(parents=True, exist_ok=True)
        half_written = rootfs.with_suffix(".new")
        with step("the images' base is made"):
            options = ["--variant=minbase", "--format=tar", f"--include={','.join(BASE_PACKAGES)}"]
            drop = ["usr/share/doc", "usr/share/man", "usr/share/locale", "var/lib/apt/lists", "var/cache/apt"]
            hooks = [f"--customize-hook=rm -rf {' '.join(f'$1/{path}' for path in drop)}"]
            _run(["mmdebstrap", *options, *hooks, _SUITE, str(half_written)])
        half_written.rename(rootfs)
    container = _buildah("from", "scratch").strip()
    try:
        _buildah("add", "--quiet", container, str(rootfs), "/")
        _buildah("commit", "--quiet", container, reference)
    finally:
        _buildah("rm", container)
    return reference


def fill_context(image: Image, context: Path) -> None:
    """What the Containerfile says its build context is, into a folder that is there and empty."""
    if any(context.iterdir()):
        raise ClusterError(f"{context} is not empty")
    shutil.copy(ROOT / image.folder / "Containerfile", context / "Containerfile")
    shutil.copy(ROOT / "requirements" / image.requirements, context / "requirements.txt")
    shutil.copytree(_third_party(image), context / "third-party")
    _own_wheels(image, context)


def _third_party(image: Image) -> Path:
    """Wheels of what is locked, and pip's own, fetched once for each content of the lock file."""
    locked = ROOT / "requirements" / image.requirements
    wheels = cache_dir() / "wheels" / f"{image.name}-{hashlib.sha256(locked.read_bytes()).hexdigest()[:12]}"
    if wheels.exists():
        return wheels
    wheels.parent.mkdir(parents=True, exist_ok=True)
    half_filled = wheels.with_suffix(".new")
    shutil.rmtree(half_filled, ignore_errors=True)
    with step(f"wheels for {image.reference} are fetched"):
        download = [
            sys.executable,
            "-m",
            "pip",
            "download",
            "--quiet",
            "--only-binary=:all:",
            "--dest",
            str(half_filled),
        ]
        _run([*download, "--require-hashes", "--requirement", str(locked)])
        _run([*download, "--no-deps", f"pip=={_pip_version()}"])
    half_filled.rename(wheels)
    return wheels


def _pip_version() -> str:
    return _run([sys.executable, "-m", "pip", "--version"]).split()[1]


def _own_wheels(image: Image, context: Path) -> None:
    # NB: from a copy, for setuptools leaves a build directory in what it builds
    copies = context / "sources"
    for folder in image.distributions:
        ignored = shutil.ignore_patterns("build", "*.egg-info", "__pycache__", "*.so")
        shutil.copytree(ROOT / folder, copies / folder, ignore=ignored)
        wheel = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
        _run([*wheel, "--wheel-dir", str(context / "own"), str(copies / folder)])
    shutil.rmtree(copies)


def _buildah(*arguments: str) -> str:
    return _run(["buildah", *arguments])


def _run(command: Iterable[str]) -> str:
    done = _finished(command)
    if done.returncode != 0:
        complaint = (done.stderr or done.stdout).strip()[-2000:]
        raise ClusterError(f"{' '.join(done.args[:4])} ...: exit {done.returncode}:\n{complaint}")
    return done.stdout


def _finished(command: Iterable[str]) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, **_BUILDAH_ENVIRONMENT}
    return subprocess.run(
        list(command), stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, env=environment
    )
