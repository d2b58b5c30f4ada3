"""Which layers are the module, by the manifest alone. Whatever bytes it is, it is understood or refused."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wasmpool_agent.oci import manifest
from wasmpool_agent.oci.errors import ArtifactInvalidError
from wasmpool_agent.oci.manifest import Content, Descriptor, Kind, read

DIGESTS = [f"sha256:{digit * 64}" for digit in "0123456789"]
TAR = "application/vnd.oci.image.layer.v1.tar+gzip"

types = st.sampled_from(["application/wasm", TAR, "application/json", *manifest.ACCEPTED]) | st.text(max_size=5)
platforms = st.fixed_dictionaries(
    {}, optional={"os": st.sampled_from(["linux", "wasi", "wasip1"]), "architecture": st.just("wasm")}
)
described = st.fixed_dictionaries(
    {},
    optional={
        "mediaType": types,
        "digest": st.sampled_from(DIGESTS) | st.text(max_size=8),
        "size": st.integers() | st.floats() | st.none(),
        "platform": st.none() | platforms,
        "annotations": st.none() | st.dictionaries(st.text(max_size=3), st.text(max_size=3), max_size=2),
    },
)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
documents = json_values | st.fixed_dictionaries(
    {},
    optional={
        "schemaVersion": st.integers(0, 3),
        "mediaType": st.sampled_from(manifest.ACCEPTED) | st.text(max_size=5),
        "config": described,
        "layers": st.lists(described, max_size=4) | json_values,
        "manifests": st.lists(described, max_size=4) | json_values,
    },
)


def layer(number: int, media_type: str = "application/wasm", title: str = "", size: int = 10) -> dict[str, object]:
    found: dict[str, object] = {"mediaType": media_type, "digest": DIGESTS[number], "size": size}
    return found | ({"annotations": {"org.opencontainers.image.title": title}} if title else {})


def of(media_type: str = manifest.OCI_MANIFEST, **fields: object) -> Content | Descriptor:
    return read(json.dumps({"schemaVersion": 2, **fields}).encode(), media_type)


def member(number: int, platform: str, **more: object) -> dict[str, object]:
    system, _, architecture = platform.partition("/")
    described = {"mediaType": manifest.OCI_MANIFEST, "digest": DIGESTS[number], "size": 10}
    return described | {"platform": {"os": system, "architecture": architecture}} | more


def test_other_layers_beside_the_module_are_left_alone() -> None:
    found = of(layers=[layer(0, "application/json", "readme"), layer(1, title="app.wasm"), layer(2, TAR)])
    assert isinstance(found, Content)
    assert (found.kind, [each.digest for each in found.layers]) == (Kind.ARTIFACT, [DIGESTS[1]])


def test_all_layers_of_an_image_are_needed_each_counted_once() -> None:
    found = of(layers=[layer(0, TAR), layer(1, TAR), layer(0, TAR)])
    assert isinstance(found, Content)
    assert (found.kind, len(found.layers), found.size_bytes) == (Kind.IMAGE, 3, 20)


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({}, "must have either layers or manifests"),
        ({"layers": [], "manifests": []}, "must have either layers or manifests"),
        ({"layers": []}, "has no layers"),
        ({"layers": [layer(0, TAR)] * 129}, "has 129 layers, allowed are 128"),
        ({"manifests": [member(0, "wasi/wasm")] * 1001}, "has 1001 manifests, allowed are 1000"),
        ({"layers": [layer(0, title="a.wasm"), layer(1, title="b.wasm")]}, r"2 WebAssembly layers: a\.wasm, b\.wasm"),
        ({"layers": [layer(0, size=-1)]}, "says -1 bytes"),
        ({"layers": [layer(0) | {"digest": "sha256:../../x"}]}, "has the digest"),
        ({"layers": [layer(0, "application/vnd.oci.image.layer.v1.tar+zstd")]}, r"its layers are .*tar\+zstd"),
        ({"layers": [layer(0, "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip")]}, "foreign"),
        ({"layers": [layer(0, "application/vnd.wasm.content.layer.v1+wasm+encrypted")]}, "encrypted"),
        ({"schemaVersion": 1, "layers": []}, "schema 1"),
        ({"mediaType": manifest.OCI_INDEX, "layers": [layer(0)]}, "has layers, and its type is .*index"),
        ({"mediaType": manifest.DOCKER_MANIFEST, "layers": [layer(0)]}, "says .*docker.* of itself"),
        ({"manifests": [member(0, "linux/amd64"), member(1, "linux/arm64")]}, "linux/amd64, linux/arm64"),
        ({"manifests": [member(0, "wasi/wasm"), member(1, "wasi/wasm")]}, "2 manifests for wasi/wasm"),
        ({"manifests": []}, "its platforms are none"),
    ],
)
def test_what_is_refused_and_why(fields: dict[str, object], problem: str) -> None:
    media_type = manifest.OCI_INDEX if "manifests" in fields and "layers" not in fields else manifest.OCI_MANIFEST
    with pytest.raises(ArtifactInvalidError, match=problem):
        of(media_type, **fields)


@pytest.mark.parametrize(
    ("members", "chosen"),
    [
        ([member(0, "linux/amd64"), member(1, "wasi/wasm")], 1),
        ([member(0, "wasip2/wasm"), member(1, "wasip1/wasm")], 1),
        ([member(0, "wasip2/wasm"), member(1, "wasi/wasm32")], 1),
        ([member(0, "linux/amd64")], 0),
        ([member(0, "linux/amd64"), member(1, "unknown/unknown", annotations={"vnd.docker.reference.type": "x"})], 0),
        ([member(0, "wasip1/wasm"), member(0, "wasip1/wasm")], 0),
    ],
)
def test_of_an_index_is_chosen(members: list[dict[str, object]], chosen: int) -> None:
    found = of(manifest.OCI_INDEX, manifests=members)
    assert isinstance(found, Descriptor)
    assert found.digest == DIGESTS[chosen]


def test_who_asks_says_which_platform_goes_first() -> None:
    index = {"schemaVersion": 2, "manifests": [member(0, "wasip2/wasm"), member(1, "wasip1/wasm")]}
    found = read(json.dumps(index).encode(), manifest.OCI_INDEX, ("wasip2", "wasip1"))
    assert isinstance(found, Descriptor)
    assert found.digest == DIGESTS[0]


@pytest.mark.parametrize(
    "data", [b"", b"[" * 100_000, b'{"a":' * 100_000, b'{"layers":' + b"[" * 100_000, b"\xff", b" " * 5_000_000]
)
def test_bytes_that_are_no_manifest_are_refused(data: bytes) -> None:
    with pytest.raises(ArtifactInvalidError):
        read(data, manifest.OCI_MANIFEST)


@given(documents, st.sampled_from(manifest.ACCEPTED) | st.text(max_size=10))
def test_any_json_is_understood_or_refused(document: object, media_type: str) -> None:
    try:
        found = read(json.dumps(document).encode(), media_type)
    except ArtifactInvalidError:
        return
    layers = found.layers if isinstance(found, Content) else (found,)
    assert layers
    for each in layers:
        assert each.digest in DIGESTS
        assert each.size >= 0


@given(st.binary(max_size=200))
def test_any_bytes_are_understood_or_refused(data: bytes) -> None:
    with pytest.raises(ArtifactInvalidError):
        read(data, manifest.OCI_MANIFEST)
