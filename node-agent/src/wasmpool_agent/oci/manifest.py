"""Which layers of a manifest are the module.

an artifact      one layer is the module itself: application/wasm with whatever config, or an older name of that type
a plain image    its layers are tars, and hold one .wasm file together
an index         leads to the manifest for WebAssembly, or to the only one
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import msgspec

from wasmpool_agent.oci.errors import ArtifactInvalidError, shown
from wasmpool_agent.oci.reference import is_digest

MOST_BYTES: Final = 4 * 1024 * 1024
MOST_LAYERS: Final = 128
MOST_MANIFESTS: Final = 1000
NAMES_SHOWN: Final = 8

OCI_MANIFEST: Final = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX: Final = "application/vnd.oci.image.index.v1+json"
DOCKER_MANIFEST: Final = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST: Final = "application/vnd.docker.distribution.manifest.list.v2+json"
ACCEPTED: Final = (OCI_MANIFEST, OCI_INDEX, DOCKER_MANIFEST, DOCKER_LIST)
PLATFORMS: Final = ("wasip1", "wasi", "wasip2")
"""Operating systems of a WebAssembly platform; of an index with several, the first of these is taken."""

_WASM: Final = "application/wasm"
_WASM_SUFFIX: Final = "+wasm"
"""application/vnd.wasm.content.layer.v1+wasm (wasm-to-oci), application/vnd.module.wasm.content.layer.v1+wasm,
application/vnd.bytecodealliance.wasm.component.layer.v0+wasm (runwasi), and all else that says it is WebAssembly."""
_TARS: Final = frozenset(
    {
        "application/vnd.oci.image.layer.v1.tar",
        "application/vnd.oci.image.layer.v1.tar+gzip",
        "application/vnd.docker.image.rootfs.diff.tar",
        "application/vnd.docker.image.rootfs.diff.tar.gzip",
    }
)
_PLAIN_FILES: Final = frozenset({"application/octet-stream", "application/vnd.oci.image.layer.v1.tar"})
"""What pushing clients write over a file whose type nobody gave."""
_TITLE: Final = "org.opencontainers.image.title"
_ATTESTATION: Final = "vnd.docker.reference.type"


class Kind(StrEnum):
    """How the module is in it."""

    ARTIFACT = "artifact"
    IMAGE = "image"


@dataclass(frozen=True, slots=True)
class Descriptor:
    """What the manifest says of a blob. Nothing of it is true before the blob has been read."""

    media_type: str
    digest: str
    size: int
    title: str = ""

    def __str__(self) -> str:
        return shown(self.title, 80) or f"{self.digest[:19]}… ({shown(self.media_type, 80)})"


@dataclass(frozen=True, slots=True)
class Content:
    """What has to be fetched. Of an artifact exactly one layer."""

    kind: Kind
    layers: tuple[Descriptor, ...]

    @property
    def size_bytes(self) -> int:
        """As the manifest says."""
        return sum({layer.digest: layer.size for layer in self.layers}.values())


class _Platform(msgspec.Struct, frozen=True):
    architecture: str = ""
    os: str = ""

    def __str__(self) -> str:
        return shown(f"{self.os or '?'}/{self.architecture or '?'}", 60)


class _Described(msgspec.Struct, frozen=True, rename="camel"):
    digest: str
    size: int
    media_type: str = ""
    artifact_type: str | None = None
    platform: _Platform | None = None
    annotations: dict[str, str] | None = None


class _Document(msgspec.Struct, frozen=True, rename="camel"):
    schema_version: int | None = None
    media_type: str = ""
    layers: list[_Described] | None = None
    manifests: list[_Described] | None = None


def read(data: bytes, media_type: str, platforms: tuple[str, ...] = PLATFORMS) -> Content | Descriptor:
    """What to fetch; of an index the manifest to go on with. `media_type`: as answered. Raises ArtifactInvalidError."""
    document = _decode(data)
    _check_types(document, media_type)
    if document.manifests is not None:
        return _choose(document.manifests, platforms)
    return _content([_descriptor(layer) for layer in document.layers or ()])


def _decode(data: bytes) -> _Document:
    if len(data) > MOST_BYTES:
        raise ArtifactInvalidError(f"the manifest has {len(data)} bytes, allowed are {MOST_BYTES}")
    try:
        document = msgspec.json.decode(data, type=_Document)
    except (msgspec.MsgspecError, RecursionError, UnicodeError, ValueError) as error:
        raise ArtifactInvalidError(f"the manifest can't be read: {shown(str(error))}") from error
    if document.schema_version == 1:
        raise ArtifactInvalidError("the manifest is of Docker's schema 1, which is not supported; push it anew")
    if (document.layers is None) == (document.manifests is None):
        # NB: with both, two clients could see two different things under one digest
        raise ArtifactInvalidError("the manifest must have either layers or manifests")
    return document


def _check_types(document: _Document, media_type: str) -> None:
    answered = media_type.partition(";")[0].strip().lower()
    for given in (answered, document.media_type):
        expected = (OCI_INDEX, DOCKER_LIST) if document.manifests is not None else (OCI_MANIFEST, DOCKER_MANIFEST)
        if given in ACCEPTED and given not in expected:
            what = "manifests" if document.manifests is not None else "layers"
            raise ArtifactInvalidError(f"the manifest has {what}, and its type is {given}")
    if document.media_type in ACCEPTED and answered in ACCEPTED and answered != document.media_type:
        raise ArtifactInvalidError(f"the manifest says {document.media_type} of itself, the registry says {answered}")


def _descriptor(described: _Described) -> Descriptor:
    if not is_digest(described.digest):
        raise ArtifactInvalidError(
            f"the manifest has the digest {shown(described.digest, 80)!r}; allowed is sha256:<64 hex digits> or sha512"
        )
    if described.size < 0:
        raise ArtifactInvalidError(f"the manifest says {described.size} bytes of {described.digest}")
    title = (described.annotations or {}).get(_TITLE, "")
    return Descriptor(described.media_type, described.digest, described.size, title)


def _content(layers: list[Descriptor]) -> Content:
    if not layers:
        raise ArtifactInvalidError("the manifest has no layers, so there is no module in it")
    if len(layers) > MOST_LAYERS:
        raise ArtifactInvalidError(f"the manifest has {len(layers)} layers, allowed are {MOST_LAYERS}")
    modules = [layer for layer in layers if _is_wasm(layer)]
    if not modules:
        # Pushed without a type: only the file's name says what it is.
        modules = [layer for layer in layers if layer.media_type in _PLAIN_FILES and layer.title.endswith(".wasm")]
    if len(modules) > 1:
        raise ArtifactInvalidError(
            f"the artifact has {len(modules)} WebAssembly layers: {_list([str(layer) for layer in modules])}; "
            "one is allowed"
        )
    if modules:
        return Content(Kind.ARTIFACT, (modules[0],))
    others = sorted({shown(layer.media_type, 100) or "none" for layer in layers if layer.media_type not in _TARS})
    if others:
        raise ArtifactInvalidError(
            f"the artifact has no WebAssembly layer; its layers are {_list(others)}; allowed is one of "
            "application/wasm, or an image of tar and tar+gzip layers with one .wasm file"
        )
    return Content(Kind.IMAGE, tuple(layers))


def _is_wasm(layer: Descriptor) -> bool:
    media_type = layer.media_type.lower()
    return media_type == _WASM or (media_type.startswith("application/") and media_type.endswith(_WASM_SUFFIX))


def _choose(manifests: list[_Described], platforms: tuple[str, ...]) -> Descriptor:
    if len(manifests) > MOST_MANIFESTS:
        raise ArtifactInvalidError(f"the index has {len(manifests)} manifests, allowed are {MOST_MANIFESTS}")
    found = [each for each in manifests if _ATTESTATION not in (each.annotations or {})]
    # One that is listed twice, with another name say, is still one.
    for system in platforms:
        fitting = {each.digest: each for each in found if _runs_wasm(each) and _system(each) == system}
        if len(fitting) > 1:
            raise ArtifactInvalidError(
                f"the index has {len(fitting)} manifests for {system}/wasm: {_list(sorted(fitting))}; one is allowed"
            )
        if fitting:
            return _descriptor(next(iter(fitting.values())))
    if len({each.digest for each in found}) == 1:
        return _descriptor(found[0])
    names = [str(each.platform or _Platform()) for each in found]
    wanted = ", ".join(f"{system}/wasm" for system in platforms)
    raise ArtifactInvalidError(
        f"the index has no manifest for WebAssembly; its platforms are {_list(names) or 'none'}; allowed are {wanted}"
    )


def _runs_wasm(described: _Described) -> bool:
    return described.platform is not None and described.platform.architecture in {"wasm", "wasm32"}


def _system(described: _Described) -> str:
    return described.platform.os if described.platform is not None else ""


def _list(names: list[str]) -> str:
    more = f" and {len(names) - NAMES_SHOWN} more" if len(names) > NAMES_SHOWN else ""
    return f"{', '.join(names[:NAMES_SHOWN])}{more}"
