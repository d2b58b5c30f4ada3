"""Covers: components that are cut off, or lie: ModuleInvalid, with the offset; and Wasmtime refuses them too."""

import pytest
import wasmtime

from tests.fuzz.component_corpus import component_binaries
from tests.fuzz.component_oracle import everything, takes_component
from tests.fuzz.wasm_inspection import refusal
from wasmpool_api.wasm import ModuleInvalid, inspect

PREAMBLE = b"\0asm\x0d\0\x01\0"
EMPTY_MODULE = b"\x01\x08\0asm\x01\0\0\0"
EMPTY_COMPONENT = b"\x04\x08" + PREAMBLE


@pytest.fixture(scope="module")
def engine() -> wasmtime.Engine:
    """Takes every proposal that Wasmtime knows."""
    return wasmtime.Engine(everything())


@pytest.mark.parametrize(
    ("sections", "offset", "words"),
    [
        (b"\x0c\0", 8, "section 12 is not known in a component; 0 to 11 are"),
        (b"\x07", 9, "the length of the type section is cut off"),
        (b"\x07\x02\x01", 9, "the type section says it has 2 bytes, 1 are left in the file"),
        (b"\x01\xff\xff\xff\xff\x0f", 9, "the core module section says it has 4294967295 bytes, 0 are left"),
        (b"\x01\x04\0asm", 10, "unexpected end: the preamble of a core module of 8 bytes, 4 are left"),
        (b"\x01\x08" + PREAMBLE, 10, "the section holds 00 61 73 6d 0d 00 01 00, no preamble of a core module"),
        (b"\x04\x08\0asm\x01\0\0\0", 10, "no preamble of a component"),
        (b"\x01\x0b\0asm\x01\0\0\0\x05\x01\x01", 20, "1 memories can't be in the 0 bytes that are left"),
        (b"\x01\x09\0asm\x01\0\0\0\x0e", 18, "section 14 is not known; 0 to 13 are"),
        (b"\x02\x04\x01\0\0\0", 11, "CoreModule 0 is meant, there are 0 so far"),
        (EMPTY_MODULE + b"\x02\x04\x01\0\x01\0", 21, "CoreModule 1 is meant, there are 1 so far"),
        (EMPTY_MODULE + b"\x02\x04\x01\x02\0\0", 21, "0x02 is not a form of core instance"),
        (EMPTY_MODULE + b"\x02\x07\x01\0\0\x01\0\x05\0", 25, "must be a core instance, 0x12"),
        (EMPTY_MODULE + b"\x02\x04\x01\0\0\x7f", 23, "127 arguments can't be in the 0 bytes that are left"),
        (EMPTY_MODULE + b"\x02\x05\x01\0\0\0\0", 24, "the core instance section has 1 bytes too many"),
        (b"\x05\x04\x01\0\0\0", 11, "Component 0 is meant, there are 0 so far"),
        (EMPTY_COMPONENT + b"\x05\x07\x01\0\0\x01\0\x05\0", 26, "Instance 0 is meant, there are 0 so far"),
        (EMPTY_COMPONENT + b"\x05\x08\x01\0\0\x01\0\0\x10\0", 25, "0x00 0x10 is not a sort of an argument"),
        (b"\x06\x05\x01\x05\0\0\0", 11, "instance 0 is meant, there are 0 so far"),
        (b"\x06\x05\x01\x03\x02\0\0", 11, "type 0 is meant, there are 0 so far"),
        (b"\x06\x05\x01\x03\x02\x01\0", 11, "an alias reaches 1 levels out, where nothing is"),
        (b"\x06\x05\x01\x04\x02\x01\0", 11, "an alias reaches 1 levels out, where nothing is"),
        (b"\x06\x05\x01\x01\x02\0\0", 11, "0x01 0x02 is not an alias"),
        (b"\x06\x06\x01\0\x05\x01\0\0", 11, "0x00 0x05 0x01 is not an alias"),
        (b"\x07\x02\x01\x6c", 11, "0x6c is not a type of a component"),
        (b"\x07\x03\x01\x70\x72", 12, "0x72 is not a value type of a component"),
        (b"\x07\x04\x01\x40\0\x02", 13, "a result is either 0 and a type, or 1 and 0"),
        (b"\x07\x04\x01\x42\x01\x05", 12, "1 declarations can't be in the 1 bytes that are left"),
        (b"\x07\x05\x01\x42\x01\x05\0", 13, "0x05 is not a declaration"),
        (b"\x07\x08\x01\x42\x01\x03\0\0\x01\0", 13, "0x03 is not a declaration"),
        (b"\x07\x04\x01\x6a\x02\0", 12, r"an optional type begins with 0 \(none\) or 1, not with 0x02"),
        (b"\x07\x07\x01\x71\x01\x01a\0\x01", 16, "a case must end with 0"),
        (b"\x07" + b"\xcc\x01\x01" + b"\x42\x01\x01" * 67 + b"\x42\0", 0, ""),
        (b"\x07" + b"\xb3\x02\x01" + b"\x42\x01\x01" * 101 + b"\x42\0\0", 312, "types are nested more than 100 deep"),
        (b"\x08\x02\x01\x3f", 11, "0x3f is not a canonical definition"),
        (b"\x08\x05\x01\x01\0\0\x7f", 14, "127 canonical options: at most 10 are allowed"),
        (b"\x08\x06\x01\x01\0\0\x01\x0a", 15, "0x0a is not a canonical option"),
        (b"\x0a\x06\x01\x03\x01a\x01\0", 11, "0x03 is not a form of an import's name"),
        (b"\x0a\x06\x01\0\x01a\x05\0", 15, "type 0 is meant, there are 0 so far"),
        (b"\x0a\x06\x01\0\x01a\x06\0", 14, "0x06 is not a sort of an import"),
        (b"\x0b\x07\x01\0\x01a\x05\0\0", 14, "Instance 0 is meant, there are 0 so far"),
        (EMPTY_MODULE + b"\x0b\x08\x01\0\x01a\0\x11\0\x02", 27, "an export's type begins with 0"),
    ],
)
def test_what_lies_is_refused_where_it_lies(engine: wasmtime.Engine, sections: bytes, offset: int, words: str) -> None:
    component = PREAMBLE + sections
    if not words:
        inspect(component)
        return
    with pytest.raises(ModuleInvalid, match=words) as caught:
        inspect(component)
    assert caught.value.offset == offset
    assert not takes_component(engine, component)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            """(component (component $c (import "m" (core module $m)) (core instance (instantiate $m)))
              (instance (instantiate $c)))""",
            "the component imports m, which nobody gives to it",
        ),
        (
            """(component (component $c (import "m" (core module $m)) (core instance (instantiate $m)))
              (component $d) (instance (instantiate $c (with "m" (component $d)))))""",
            "m is not of the sort CoreModule",
        ),
        (
            """(component (component $c) (instance $i (instantiate $c)) (alias export $i "m" (core module $m))
              (core instance (instantiate $m)))""",
            "the instance does not export m",
        ),
    ],
)
def test_wiring_that_can_not_be_is_refused(engine: wasmtime.Engine, text: str, words: str) -> None:
    component = bytes(wasmtime.wat2wasm(text))
    with pytest.raises(ModuleInvalid, match=words):
        inspect(component)
    assert not takes_component(engine, component)


@pytest.mark.parametrize("name", component_binaries())
def test_a_component_that_is_cut_off_anywhere_is_refused_or_a_shorter_component(
    engine: wasmtime.Engine, name: str
) -> None:
    binary = component_binaries()[name]
    for length in range(0, len(binary), max(1, len(binary) // 200)):
        error = refusal(binary[:length])
        if error is not None:
            assert error.offset <= length
            assert not takes_component(engine, binary[:length])
