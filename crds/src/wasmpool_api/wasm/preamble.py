"""The first eight bytes: a core module, a component, or something else that deserves a helpful word."""

from enum import StrEnum
from typing import Final

from wasmpool_api.wasm.reader import ModuleInvalid, Reader

MAGIC: Final = b"\0asm"
PREAMBLE_BYTES: Final = 8


class BinaryKind(StrEnum):
    """What the file is."""

    MODULE = "Module"
    COMPONENT = "Component"


_PREAMBLES: Final = {BinaryKind.MODULE: MAGIC + b"\1\0\0\0", BinaryKind.COMPONENT: MAGIC + b"\x0d\0\1\0"}
_LOOKALIKES: Final[tuple[tuple[bytes, str], ...]] = (
    (b"\x1f\x8b", "it is gzip; unpack it first"),
    (b"\x28\xb5\x2f\xfd", "it is zstd; unpack it first"),
    (b"\x7fELF", "it is ELF: a native program, or code that Wasmtime has compiled already"),
    (b"PK\x03\x04", "it is a zip archive"),
    (b"BZh", "it is bzip2; unpack it first"),
    (b"version https://git-lfs", "it is a Git LFS pointer, not the file itself"),
    (b"AGFzbQ", "it is base64 of a WebAssembly binary; in a ConfigMap it belongs under binaryData"),
)


def kind_of(data: bytes | memoryview) -> BinaryKind:
    """Raises ModuleInvalid for anything but a core module or a component."""
    head = bytes(data[:64])
    if not head:
        raise ModuleInvalid(0, "not WebAssembly: the file is empty")
    if head[:4] != MAGIC[: len(head)]:
        raise ModuleInvalid(0, f"not WebAssembly: {_guess(head)}")
    if len(head) < PREAMBLE_BYTES:
        raise ModuleInvalid(len(head), f"cut off: the file has {len(head)} bytes, its preamble alone takes 8")
    version, layer = int.from_bytes(head[4:6], "little"), int.from_bytes(head[6:8], "little")
    if (version, layer) == (1, 0):
        return BinaryKind.MODULE
    if (version, layer) == (0x0D, 1):
        return BinaryKind.COMPONENT
    raise ModuleInvalid(
        4, f"version {version} of layer {layer} is not known; a core module has 1 of 0, a component 13 of 1"
    )


def expect_preamble(reader: Reader, kind: BinaryKind) -> None:
    """What is in a component begins as a file does; `reader` stands behind that afterwards. Raises ModuleInvalid."""
    what = "a core module" if kind is BinaryKind.MODULE else "a component"
    at = reader.skip(PREAMBLE_BYTES, f"the preamble of {what}")
    head = bytes(reader.data[at : at + PREAMBLE_BYTES])
    if head != _PREAMBLES[kind]:
        raise ModuleInvalid(at, f"the section holds {head.hex(' ')}, no preamble of {what}")


def _guess(head: bytes) -> str:
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n")
    if text.startswith((b"(module", b"(component", b";;", b"(;")):
        return "it is the text format (WAT); turn it into a binary, with `wat2wasm` or `wasm-tools parse`"
    for magic, words in _LOOKALIKES:
        if head.startswith(magic):
            return words
    return f"the file begins with {head[:4].hex(' ')}, 00 61 73 6d is wanted"
