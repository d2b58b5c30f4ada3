"""Every form in which modules are published, pushed by real clients to a real registry, is pulled; others are not."""

import gzip
import json
from pathlib import Path

import pytest

from tests.oci.pulling import module, pull, resolve
from tests.oci.registry import Registry, tar
from wasmpool_agent.oci.errors import ArtifactInvalidError, NotFoundError, TooLargeError
from wasmpool_agent.oci.manifest import Kind

pytestmark = pytest.mark.cluster

WKG = ("application/vnd.wasm.config.v0+json", json.dumps({"architecture": "wasm", "os": "wasip1"}).encode())


@pytest.mark.parametrize(
    "media_type",
    [
        "application/wasm",
        "application/vnd.wasm.content.layer.v1+wasm",
        "application/vnd.module.wasm.content.layer.v1+wasm",
        "application/vnd.bytecodealliance.wasm.component.layer.v0+wasm",
        "application/octet-stream",
        None,
    ],
)
def test_a_layer_is_the_module_whichever_name_its_type_has(
    registry: Registry, downloads: Path, media_type: str | None
) -> None:
    wasm = module()
    registry.push_artifact("forms/layer:1", {"app.wasm": wasm}, media_type=media_type)
    assert pull([registry.settings()], f"{registry.host}/forms/layer:1", downloads) == wasm
    assert not list(downloads.iterdir())


def test_the_layout_of_the_cncf_is_pulled(registry: Registry, downloads: Path) -> None:
    wasm = module()
    digest = registry.push_artifact("forms/cncf:1", {"app.wasm": wasm}, config=WKG)
    resolved = resolve([registry.settings()], f"{registry.host}/forms/cncf:1")
    assert (resolved.reference.digest, resolved.kind, resolved.size_bytes) == (digest, Kind.ARTIFACT, len(wasm))
    assert pull([registry.settings()], f"{registry.host}/forms/cncf@{digest}", downloads) == wasm


def test_an_artifact_type_changes_nothing(registry: Registry, downloads: Path) -> None:
    wasm = module()
    registry.push_artifact("forms/type:1", {"app.wasm": wasm}, artifact_type="application/vnd.acme.thing")
    assert pull([registry.settings()], f"{registry.host}/forms/type:1", downloads) == wasm


@pytest.mark.parametrize("oci", [True, False], ids=["oci", "docker"])
@pytest.mark.parametrize("packed", [True, False], ids=["gzip", "tar"])
def test_a_plain_image_with_one_module_is_pulled(registry: Registry, downloads: Path, oci: bool, packed: bool) -> None:
    wasm = module(3_000_000)
    layers = [tar({"etc": None, "etc/motd": b"hello"}), tar({"app": None, "app/thumbs.wasm": wasm})]
    layers = [gzip.compress(layer) for layer in layers] if packed else layers
    registry.push_image("forms/image:1", layers, oci=oci)
    resolved = resolve([registry.settings()], f"{registry.host}/forms/image:1")
    assert resolved.kind is Kind.IMAGE
    assert pull([registry.settings()], f"{registry.host}/forms/image:1", downloads) == wasm
    assert not list(downloads.iterdir())


def test_what_a_later_layer_replaces_or_removes_does_not_count(registry: Registry, downloads: Path) -> None:
    old, wasm = module(), module()
    layers = [
        tar({"app.wasm": old, "old/one.wasm": old, "old/two.wasm": old, "gone.wasm": old}),
        tar({"app.wasm": wasm, "old/.wh..wh..opq": b"", ".wh.gone.wasm": b""}),
    ]
    registry.push_image("forms/whiteouts:1", layers)
    assert pull([registry.settings()], f"{registry.host}/forms/whiteouts:1", downloads) == wasm


def test_an_image_with_several_modules_is_refused_with_their_names(registry: Registry, downloads: Path) -> None:
    registry.push_image("forms/several:1", [tar({"a.wasm": module(), "b/c.wasm": module()})])
    with pytest.raises(ArtifactInvalidError, match=r"has 2 \.wasm files: a\.wasm, b/c\.wasm; one is allowed"):
        pull([registry.settings()], f"{registry.host}/forms/several:1", downloads)


def test_an_image_without_a_module_is_refused(registry: Registry, downloads: Path) -> None:
    registry.push_image("forms/none:1", [tar({"bin/app": b"\x7fELF"})])
    with pytest.raises(ArtifactInvalidError, match=r"no \.wasm file in its 1 layers"):
        pull([registry.settings()], f"{registry.host}/forms/none:1", downloads)


def test_an_artifact_with_several_modules_is_refused_with_their_names(registry: Registry) -> None:
    registry.push_artifact("forms/two:1", {"a.wasm": module(), "b.wasm": module()})
    with pytest.raises(ArtifactInvalidError, match=r"has 2 WebAssembly layers: a\.wasm, b\.wasm; one is allowed"):
        resolve([registry.settings()], f"{registry.host}/forms/two:1")


def test_an_artifact_of_something_else_is_refused_with_its_types(registry: Registry) -> None:
    registry.push_artifact(
        "forms/chart:1", {"chart.tgz": b"x"}, media_type="application/vnd.cncf.helm.chart.content.v1"
    )
    with pytest.raises(ArtifactInvalidError, match=r"its layers are application/vnd\.cncf\.helm\.chart\.content\.v1"):
        resolve([registry.settings()], f"{registry.host}/forms/chart:1")


def test_a_layer_that_only_says_that_it_is_a_module_is_refused(registry: Registry, downloads: Path) -> None:
    registry.push_artifact("forms/elf:1", {"app.wasm": b"\x7fELF...."})
    with pytest.raises(ArtifactInvalidError, match="is no WebAssembly: it starts with 7f 45 4c 46"):
        pull([registry.settings()], f"{registry.host}/forms/elf:1", downloads)


@pytest.mark.parametrize("oci", [True, False], ids=["oci", "docker"])
def test_of_an_index_the_webassembly_is_taken(registry: Registry, downloads: Path, oci: bool) -> None:
    wasm = module()
    registry.push_image("forms/native:1", [tar({"bin/app": b"\x7fELF"})], platform="linux/amd64")
    registry.push_image("forms/p1:1", [tar({"app.wasm": wasm})], platform="wasip1/wasm")
    registry.push_image("forms/p2:1", [tar({"app.wasm": module()})], platform="wasip2/wasm")
    members = ["forms/native:1", "forms/p2:1", "forms/p1:1"]
    digest = registry.push_index("forms/index:1", members, oci=oci)
    assert pull([registry.settings()], f"{registry.host}/forms/index:1", downloads) == wasm
    resolved = resolve([registry.settings()], f"{registry.host}/forms/index:1")
    assert resolved.reference.digest == digest, "an index is pinned as an index"


def test_an_index_without_webassembly_is_refused_with_its_platforms(registry: Registry) -> None:
    for architecture in ("amd64", "arm64"):
        platform = f"linux/{architecture}"
        registry.push_image(f"forms/{architecture}:1", [tar({"bin/app": architecture.encode()})], platform=platform)
    registry.push_index("forms/natives:1", ["forms/amd64:1", "forms/arm64:1"])
    with pytest.raises(
        ArtifactInvalidError, match="its platforms are linux/amd64, linux/arm64; allowed are wasip1/wasm"
    ):
        resolve([registry.settings()], f"{registry.host}/forms/natives:1")


def test_what_was_pinned_stays_when_the_tag_moves(registry: Registry, downloads: Path) -> None:
    before, after = module(), module()
    registry.push_artifact("forms/moving:1", {"app.wasm": before})
    pinned = resolve([registry.settings()], f"{registry.host}/forms/moving:1").reference
    registry.push_artifact("forms/moving:1", {"app.wasm": after})
    assert pull([registry.settings()], f"{registry.host}/forms/moving:1", downloads) == after
    assert pull([registry.settings()], str(pinned), downloads) == before


def test_what_is_not_there_is_named_with_the_registrys_words(registry: Registry) -> None:
    registry.push_artifact("forms/there:1", {"app.wasm": module()})
    with pytest.raises(NotFoundError) as caught:
        resolve([registry.settings()], f"{registry.host}/forms/there:2")
    assert f"GET manifest 2 of {registry.host}/forms/there: 404: MANIFEST_UNKNOWN manifest unknown" in str(caught.value)
    assert not caught.value.temporary
    assert caught.value.status == 404


def test_more_than_is_allowed_is_refused_before_a_byte_is_loaded(registry: Registry, downloads: Path) -> None:
    registry.push_artifact("forms/large:1", {"app.wasm": module(100_000)})
    with pytest.raises(TooLargeError, match="has 100000 bytes to load, allowed are 99999"):
        pull([registry.settings()], f"{registry.host}/forms/large:1", downloads, most_bytes=99_999)
    assert not list(downloads.iterdir())


def test_what_unpacks_to_more_than_is_allowed_is_refused(registry: Registry, downloads: Path) -> None:
    bomb = gzip.compress(tar({"app.wasm": b"\0asm" + bytes(50_000_000)}))
    registry.push_image("forms/bomb:1", [bomb])
    with pytest.raises(TooLargeError, match="unpack to more than 5048576 bytes"):
        pull([registry.settings()], f"{registry.host}/forms/bomb:1", downloads, most_bytes=1_000_000)
