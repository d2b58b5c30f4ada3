"""The one .wasm file of an image: tars as others write them are read, and those made to do harm cost nothing."""

import contextlib
import gzip
import io
import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.oci.registry import tar
from wasmpool_agent.oci.errors import ArtifactInvalidError, TooLargeError
from wasmpool_agent.oci.layers import Layer, find_wasm
from wasmpool_agent.oci.manifest import Descriptor

WASM = b"\0asm\1\0\0\0 and more"
MOST = 1_000_000


def found(*layers: bytes, most_bytes: int = MOST) -> bytes:
    blobs = [
        Layer(
            Descriptor("application/vnd.oci.image.layer.v1.tar", f"sha256:{number:064}", len(layer)), io.BytesIO(layer)
        )
        for number, layer in enumerate(layers)
    ]
    return find_wasm(blobs, most_bytes)


def written(*entries: tuple[tarfile.TarInfo, bytes], form: int = tarfile.PAX_FORMAT) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as archive:
        for entry, content in entries:
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def link(name: str, target: str, kind: bytes) -> tuple[tarfile.TarInfo, bytes]:
    entry = tarfile.TarInfo(name)
    entry.type, entry.linkname = kind, target
    return entry, b""


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize("name", ["app.wasm", "./app.wasm", "/app.wasm", "a/b/c.wasm", f"{'d' * 90}/{'f' * 90}.wasm"])
def test_every_form_of_tar_is_read(form: int, name: str) -> None:
    assert found(written((tarfile.TarInfo("x"), b"y" * 700), (tarfile.TarInfo(name), WASM), form=form)) == WASM


@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_long_names_and_names_in_other_scripts_are_read(form: int) -> None:
    assert found(written((tarfile.TarInfo(f"{'ö' * 200}/{'x' * 300}.wasm"), WASM), form=form)) == WASM


@given(
    st.dictionaries(
        st.from_regex(r"[a-z]{1,8}(/[a-z]{1,120}){0,3}\.[a-z]{1,3}", fullmatch=True).filter(
            lambda it: ".wasm" not in it
        ),
        st.binary(max_size=1500),
        max_size=5,
    ),
    st.binary(max_size=3000),
    st.sampled_from([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]),
    st.booleans(),
)
def test_whatever_else_is_in_it_the_module_is_found_as_it_was_packed(
    others: dict[str, bytes], wasm: bytes, form: int, packed: bool
) -> None:
    entries = [(tarfile.TarInfo(name), content) for name, content in others.items()]
    layer = written(*entries[:2], (tarfile.TarInfo("the/app.wasm"), wasm), *entries[2:], form=form)
    assert found(gzip.compress(layer) if packed else layer) == wasm


def test_a_gzip_of_several_members_is_read() -> None:
    layer = tar({"x": b"y" * 5000, "app.wasm": WASM})
    assert found(gzip.compress(layer[:3000]) + gzip.compress(b"") + gzip.compress(layer[3000:])) == WASM


@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        ([{"a.wasm": b"1", "b.wasm": b"2"}, {".wh.a.wasm": b""}], b"2"),
        ([{"d/a.wasm": b"1", "b.wasm": b"2"}, {".wh.d": b""}], b"2"),
        ([{"d/a.wasm": b"1", "b.wasm": b"2"}, {"d/.wh..wh..opq": b""}], b"2"),
        ([{"d/a.wasm": b"1"}, {"d/.wh..wh..opq": b"", "d/a.wasm": b"2"}], b"2"),
        ([{"a.wasm": b"1"}, {"a.wasm": b"2", ".wh.a.wasm": b""}], b"2"),
        ([{"d/a.wasm": b"1", "b.wasm": b"2"}, {"d": b"now a file"}], b"2"),
        ([{"a.wasm": b"1"}, {".wh..wh..opq": b"", "b.wasm": b"2"}], b"2"),
        ([{"a.wasm": b"1"}, {".wh.a.wasm": b""}, {"a.wasm": b"2"}], b"2"),
        ([{"d.wasm/a.txt": b"1", "b.wasm": b"2"}, {"d.wasm": None}], b"2"),
        ([{"ab/x.wasm": b"2"}, {".wh.a": b""}], b"2"),
        ([{"a.wasm": b"1"}, {"a.wasm": b"2"}], b"2"),
    ],
)
def test_layers_are_laid_over_each_other(layers: list[dict[str, bytes | None]], expected: bytes) -> None:
    assert found(*(tar(layer) for layer in layers)) == expected


@pytest.mark.parametrize(
    ("layer", "problem"),
    [
        (tar({}), r"has no \.wasm file in its 1 layers"),
        (tar({"a.wasm": WASM, "b.wasm": WASM}), r"has 2 \.wasm files: a\.wasm, b\.wasm"),
        (tar({f"{n}.wasm": b"" for n in range(20)}), r"has 20 .* and 12 more; one is allowed"),
        (tar({"../app.wasm": WASM}), r"a path with '\.\.'"),
        (written(link("app.wasm", "app", tarfile.LNKTYPE)), "is a hard link"),
        (written(link("app.wasm", "app", tarfile.SYMTYPE)), r"has no \.wasm file"),
        (b"\x28\xb5\x2f\xfd" + b"x" * 100, "is packed with zstd; allowed are tar and tar"),
        (b"x" * 512, "can't be unpacked: a header has a number that is not octal"),
        (tar({"app.wasm": WASM}).replace(b"app", b"bpp"), "checksum is wrong"),
        (tar({"app.wasm": WASM})[:600], r"ends within"),
        (gzip.compress(tar({"app.wasm": WASM}))[:-20], "ends too soon"),
        (b"\x1f\x8b" + b"x" * 100, "can't be unpacked"),
    ],
)
def test_what_is_refused_and_why(layer: bytes, problem: str) -> None:
    with pytest.raises(ArtifactInvalidError, match=problem):
        found(layer)


@pytest.mark.parametrize("name", ["app.wasm", "other"])
def test_what_unpacks_to_too_much_is_refused(name: str) -> None:
    with pytest.raises(TooLargeError, match="unpack to more than 5048576 bytes"):
        found(gzip.compress(tar({name: bytes(20_000_000)})))


def test_the_layers_are_counted_together() -> None:
    layers = [gzip.compress(tar({f"{n}": bytes(900_000)})) for n in range(7)]
    with pytest.raises(TooLargeError, match="unpack to more than"):
        found(*layers)


def test_a_module_larger_than_allowed_is_refused_with_both_figures() -> None:
    with pytest.raises(TooLargeError, match=r"app\.wasm has 1001 bytes in the image, allowed are 1000"):
        found(tar({"app.wasm": bytes(1001)}), most_bytes=1000)


def test_a_size_that_is_not_true_costs_nothing() -> None:
    header = bytearray(tar({"app.wasm": WASM})[:512])
    header[124:136] = b"77777777777\0"
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    with pytest.raises(ArtifactInvalidError, match="ends within a file"):
        found(bytes(header))
    header[124:136] = b"\x80" + b"\xff" * 11
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    with pytest.raises(ArtifactInvalidError, match="out of range"):
        found(bytes(header))


def test_a_pax_header_without_end_is_refused() -> None:
    entry = tarfile.TarInfo("app.wasm")
    entry.pax_headers = {"comment": "1" * 200_000}
    with pytest.raises(ArtifactInvalidError, match=r"has a header of 2000.. bytes, allowed are 65536"):
        found(written((entry, WASM)))


@given(st.binary(max_size=2000), st.booleans())
def test_any_bytes_are_a_layer_or_refused(data: bytes, packed: bool) -> None:
    with contextlib.suppress(ArtifactInvalidError, TooLargeError):
        found(gzip.compress(data) if packed else data)


@given(st.integers(0, 1535), st.binary(min_size=1, max_size=20))
def test_a_tar_with_other_bytes_somewhere_is_a_layer_or_refused(at: int, other: bytes) -> None:
    layer = bytearray(written((tarfile.TarInfo("ö" * 60 + ".wasm"), WASM)))
    layer[at : at + len(other)] = other
    with contextlib.suppress(ArtifactInvalidError, TooLargeError):
        found(bytes(layer))


def test_of_many_headers_nothing_is_gathered() -> None:
    """Each is within its bound; together they would be gigabytes."""
    with pytest.raises(ArtifactInvalidError, match="more than 4 headers for one entry"):
        found(_headers(5))


def _headers(count: int) -> bytes:
    record = f"{60_000} comment=".encode()
    record += b"x" * (60_000 - len(record) - 1) + b"\n"
    blocks = b""
    for _ in range(count):
        info = tarfile.TarInfo("pax")
        info.type, info.size = tarfile.XHDTYPE, len(record)
        blocks += info.tobuf(tarfile.USTAR_FORMAT) + record + bytes(-len(record) % 512)
    return blocks


@pytest.mark.parametrize(
    ("path", "problem"),
    [("a" * 5000 + ".wasm", "a path of 5005 bytes, allowed are 4096"), ("a/" * 100 + "b.wasm", "101 parts")],
)
def test_paths_are_bounded(path: str, problem: str) -> None:
    with pytest.raises(ArtifactInvalidError, match=problem):
        found(written((tarfile.TarInfo(path), WASM)))


def test_whiteouts_cost_one_look_each() -> None:
    """As many as there may be, of a lower layer as full as it may be: minutes where each is compared with each."""
    deep = "/".join("d" * 40)
    lower = written(*((tarfile.TarInfo(f"{deep}/{number}.wasm"), b"") for number in range(250)))
    upper = written(
        *((tarfile.TarInfo(f"{deep}/.wh.gone-{number}"), b"") for number in range(20_000)),
        *((tarfile.TarInfo(f"{deep}/.wh.{number}.wasm"), b"") for number in range(249)),
    )
    looks = 0

    def counted() -> None:
        nonlocal looks
        looks += 1

    blobs = [
        Layer(Descriptor("application/vnd.oci.image.layer.v1.tar", f"sha256:{it:064}", len(data)), io.BytesIO(data))
        for it, data in enumerate((lower, upper))
    ]
    assert find_wasm(blobs, 100_000_000, counted) == b""
    assert looks < 500_000


def test_who_waits_no_more_ends_it_between_two_pieces() -> None:
    class GoneError(Exception):
        pass

    pieces = 0

    def go_on() -> None:
        nonlocal pieces
        pieces += 1
        if pieces > 10:
            raise GoneError

    data = written((tarfile.TarInfo("app.wasm"), WASM + bytes(50_000_000)))
    described = Descriptor("application/vnd.oci.image.layer.v1.tar", f"sha256:{0:064}", len(data))
    with pytest.raises(GoneError):
        find_wasm([Layer(described, io.BytesIO(data))], 100_000_000, go_on)
    assert pieces == 11
