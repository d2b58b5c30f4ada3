"""Packs one program into an image archive (OCI layout in a tar) that `ctr images import` takes."""

import gzip
import hashlib
import io
import json
import platform
import tarfile
from pathlib import Path
from typing import Final

_MEDIA: Final = "application/vnd.oci.image"
_ARCHITECTURES: Final = {"x86_64": "amd64", "aarch64": "arm64"}


def pack_program(program: Path, image: str, archive: Path) -> None:
    """An image with nothing in it but this static program, run as user 65532."""
    layer = _tar({program.name: (program.read_bytes(), 0o755)})
    config = {
        "architecture": _ARCHITECTURES.get(platform.machine(), platform.machine()),
        "os": "linux",
        "config": {"Entrypoint": [f"/{program.name}"], "User": "65532:65532"},
        "rootfs": {"type": "layers", "diff_ids": [_digest(layer)]},
    }
    blobs: dict[str, bytes] = {}

    def blob(kind: str, content: bytes) -> dict[str, object]:
        blobs[_digest(content)] = content
        return {"mediaType": f"{_MEDIA}.{kind}", "digest": _digest(content), "size": len(content)}

    manifest = {
        "schemaVersion": 2,
        "mediaType": f"{_MEDIA}.manifest.v1+json",
        "config": blob("config.v1+json", _json(config)),
        "layers": [blob("layer.v1.tar+gzip", gzip.compress(layer, compresslevel=6, mtime=0))],
    }
    described = blob("manifest.v1+json", _json(manifest))
    described["annotations"] = {"io.containerd.image.name": image}
    files = {
        "oci-layout": (_json({"imageLayoutVersion": "1.0.0"}), 0o644),
        "index.json": (_json({"schemaVersion": 2, "manifests": [described]}), 0o644),
    }
    files |= {f"blobs/{digest.replace(':', '/')}": (content, 0o644) for digest, content in blobs.items()}
    archive.write_bytes(_tar(files))


def _tar(files: dict[str, tuple[bytes, int]]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, (content, mode) in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), mode
            tar.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def _json(value: object) -> bytes:
    return json.dumps(value).encode()


def _digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"
