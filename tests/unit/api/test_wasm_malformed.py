"""Covers: what is not WebAssembly, is cut off, or lies: ModuleInvalid, with the offset and in words that help."""

import pytest
import wasmtime

from tests.fuzz.wasm_corpus import all_features, binaries
from tests.fuzz.wasm_inspection import is_valid, refusal
from wasmpool_api.wasm import ModuleInvalid, inspect
from wasmpool_api.wasm.reader import Reader

PREAMBLE = b"\0asm\x01\0\0\0"


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "not WebAssembly: the file is empty"),
        (b"(module)", r"it is the text format \(WAT\); turn it into a binary, with `wat2wasm`"),
        (b"\xef\xbb\xbf\n  (component)", "it is the text format"),
        (b";; a comment\n(module)", "it is the text format"),
        (b"\x1f\x8b\x08\0\0\0\0\0", "it is gzip; unpack it first"),
        (b"\x28\xb5\x2f\xfd\0\0\0\0", "it is zstd"),
        (b"\x7fELF\x02\x01\x01\0", "it is ELF: a native program, or code that Wasmtime has compiled already"),
        (b"PK\x03\x04\0\0\0\0", "it is a zip archive"),
        (b"AGFzbQEAAAA=", "it is base64 of a WebAssembly binary; in a ConfigMap it belongs under binaryData"),
        (b"version https://git-lfs.github.com/spec/v1", "it is a Git LFS pointer"),
        (b"{}", "the file begins with 7b 7d, 00 61 73 6d is wanted"),
        (b"\0asm", "cut off: the file has 4 bytes, its preamble alone takes 8"),
        (b"\0as", "cut off: the file has 3 bytes"),
        (b"\0asm\x02\0\0\0", "version 2 of layer 0 is not known; a core module has 1 of 0, a component 13 of 1"),
        (b"\0asm\x0a\0\x01\0", "version 10 of layer 1 is not known"),
    ],
)
def test_what_is_no_binary_is_named(data: bytes, words: str) -> None:
    with pytest.raises(ModuleInvalid, match=words):
        inspect(data)


MEMORY = b"\x05\x03\x01\0\x01"
TYPE = b"\x01\x04\x01\x60\0\0"


@pytest.mark.parametrize(
    ("sections", "offset", "words"),
    [
        (b"\x05", 9, "the length of the memory section is cut off"),
        (b"\x05\x04\x01\0\x01", 9, "the memory section says it has 4 bytes, 3 are left in the file"),
        (b"\x05\xff\xff\xff\xff\x0f\x01\0\x01", 9, "says it has 4294967295 bytes, 3 are left"),
        (b"\x05\x02\x01\0\x01", 10, "1 memories can't be in the 1 bytes that are left"),
        (b"\x05\x03\x01\0\x81", 12, "unexpected end: the minimum of a memory is cut off"),
        (b"\x05\x04\x01\0\x01\0", 13, "the memory section has 1 bytes too many"),
        (b"\x05\x83\x80\x80\x80\x00\x01\0\x01", 14, ""),  # five bytes for a small number are allowed ...
        (b"\x05\x83\x80\x80\x80\x80\x00\x01\0\x01", 9, "the length of the memory section is longer than 32 bits"),
        (b"\x05\x83\x80\x80\x80\x10\x01\0\x01", 9, "the length of the memory section does not fit 32 bits"),
        (b"\x0e\x00", 8, "section 14 is not known; 0 to 13 are"),
        (MEMORY + MEMORY, 13, "the memory section is there twice"),
        (MEMORY + TYPE, 13, "the type section comes after the memory section"),
        (b"\0\x05\x06name\0", 11, "a custom section's name of 6 bytes, 4 are left"),
        (b"\0\x02\x01\xff", 10, "a custom section's name is not UTF-8"),
        (b"\x01\x02\xff\x01", 10, "255 types can't be in the 0 bytes that are left"),
        (b"\x01\x05\xff\xff\xff\xff\x0f", 10, "4294967295 types: at most 1000000 are allowed"),
        (b"\x01\x04\x01\x61\0\0", 11, "0x61 is not a form of type"),
        (b"\x01\x05\x01\x60\x01\x01\0", 13, "0x01 is not a value type"),
        (b"\x01\x05\x01\x5f\x01\x7f\x02", 14, r"a field is either 0 \(constant\) or 1 \(mutable\)"),
        (b"\x02\x06\x01\0\0\x05\0\0", 13, "0x05 is not a kind of an import"),
        (b"\x02\x05\x01\x01a\0\x7f", 15, "the number of imports of a group is cut off"),
        (b"\x02\x08\x01\x01a\0\x7f\x02\0\0", 15, "2 imports of a group can't be in the 2 bytes that are left"),
        (b"\x02\x0c\x01\x01a\0\x7e\x02\0\x01\x01\x01b\0", 21, "the import section has 1 bytes too many"),
        (TYPE + b"\x03\x02\x02\0", 16, "2 functions can't be in the 1 bytes that are left"),
        (TYPE + b"\x03\x03\x01\0\0", 17, "1 functions are announced, the section has 2"),
        (TYPE + b"\x03\x03\x02\0\x80", 17, "2 functions are announced, the section has 1"),
        (TYPE + b"\x03\x07\x01\x80\x80\x80\x80\x10\0", 17, "functions: a number is longer or larger than 32 bits"),
        (TYPE + b"\x03\x02\x01\0", 18, "1 functions are declared, 0 have a body"),
        (b"\x04\x04\x01\x7f\0\0", 11, "0x7f is not a reference type"),
        (b"\x04\x04\x01\x70\x08\0", 12, "0x08 are no flags of a table's limits"),
        (b"\x04\x05\x01\x70\x01\x02\x01", 13, "the minimum of a table, 2, is more than its maximum, 1"),
        (b"\x05\x03\x01\x10\x01", 11, "0x10 are no flags of a memory's limits"),
        (b"\x05\x05\x01\0\x81\x80\x04", 11, "a memory of 65537 pages of 65536 bytes: at most 65536 are allowed"),
        (b"\x05\x06\x01\x01\0\x81\x80\x04", 11, "a memory of 65537 pages of 65536 bytes: at most 65536 are allowed"),
        (b"\x05\x03\x01\x02\x01", 11, "a shared memory must have a maximum"),
        (b"\x05\x04\x01\x08\x01\x05", 11, "a memory's pages are 1 or 65536 bytes, not 2\\^5"),
        (b"\x05\x02\x7f\0", 10, "127 memories: at most 100 are allowed"),
        (b"\x06\x05\x01\x7f\0\x0b\0", 14, "the global section has 1 bytes too many"),
        (b"\x06\x05\x01\x7f\0\x10\0", 13, "instruction 0x10 is not allowed in a constant expression"),
        (b"\x06\x05\x01\x7f\0\x41\0", 15, "a constant expression is missing"),
        (b"\x06\x0a\x01\x7f\0\x41\x80\x80\x80\x80\x08\x0b", 14, "a constant does not fit 32 bits"),
        (b"\x06\x05\x01\x7f\x04\x0b\0", 12, "0x04 is not a global's mutability"),
        (b"\x0c\x01\x01", 11, "1 data segments are announced, 0 are there"),
        (b"\x0b\x02\x7f\0", 10, "127 data segments can't be in the 1 bytes that are left"),
    ],
)
def test_what_lies_is_refused_where_it_lies(sections: bytes, offset: int, words: str) -> None:
    module = PREAMBLE + sections
    if not words:
        inspect(module)
        return
    with pytest.raises(ModuleInvalid, match=words) as caught:
        inspect(module)
    assert caught.value.offset == offset
    assert str(caught.value).endswith(f"(at offset {offset})")
    assert not is_valid(wasmtime.Engine(all_features()), module), "Wasmtime refuses it too"


@pytest.mark.parametrize("name", binaries())
def test_a_module_that_is_cut_off_anywhere_is_refused_or_a_shorter_module(name: str) -> None:
    """Where a section ends, what is before it may be a module of its own: then Wasmtime has to think so too."""
    engine = wasmtime.Engine(all_features())
    binary = binaries()[name]
    step = max(1, len(binary) // 400)
    for length in range(0, len(binary), step):
        error = refusal(binary[:length])
        if error is not None:
            assert error.offset <= length
            assert not is_valid(engine, binary[:length])


def test_a_component_with_a_section_that_lies_is_refused() -> None:
    component = bytes(wasmtime.wat2wasm("(component (core module (memory 1)))"))
    with pytest.raises(ModuleInvalid, match=r"module section says it has \d+ bytes, \d+ are left"):
        inspect(component[:-1])


@pytest.mark.parametrize(
    ("data", "value"),
    [
        (b"\x00", 0),
        (b"\x7f", -1),
        (b"\x3f", 63),
        (b"\x40", -64),
        (b"\x80\x7f", -128),
        (b"\xff\xff\xff\xff\x07", 2**31 - 1),
        (b"\x80\x80\x80\x80\x78", -(2**31)),
    ],
)
def test_signed_numbers_are_read(data: bytes, value: int) -> None:
    reader = Reader(data)
    assert reader.s32("a number") == value
    assert reader.remaining == 0
    assert Reader(data).s64("a number") == value


@pytest.mark.parametrize("data", [b"\x80\x80\x80\x80\x08", b"\xff\xff\xff\xff\x4f", b"\x80\x80\x80\x80\x80\x00"])
def test_signed_numbers_that_do_not_fit_are_refused(data: bytes) -> None:
    with pytest.raises(ModuleInvalid, match="32 bits"):
        Reader(data).s32("a number")


def test_the_largest_unsigned_numbers_are_read() -> None:
    assert Reader(b"\xff\xff\xff\xff\x0f").u32("a number") == 2**32 - 1
    assert Reader(b"\xff" * 9 + b"\x01").u64("a number") == 2**64 - 1
    with pytest.raises(ModuleInvalid, match="does not fit 64 bits"):
        Reader(b"\xff" * 9 + b"\x02").u64("a number")
    with pytest.raises(ModuleInvalid, match="longer than 64 bits"):
        Reader(b"\xff" * 9 + b"\x81\x00").u64("a number")


@pytest.mark.parametrize(("position", "end"), [(-1, 2), (0, 4), (3, 2)])
def test_a_reader_can_not_begin_outside(position: int, end: int) -> None:
    with pytest.raises(ValueError, match="is not within the 3 bytes"):
        Reader(b"abc", position, end)
