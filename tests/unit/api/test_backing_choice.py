"""Covers: how large a guest's image is, and which pages are chosen by that."""

from dataclasses import replace
from pathlib import Path

import pytest
import wasmtime

from wasmpool_api.backing_choice import IMAGE_MOST_BYTES, backing_for
from wasmpool_api.instance_pool import Backing
from wasmpool_api.sizes import MAX_SIZE
from wasmpool_api.wasm import Inspection, inspect

DOCUMENT = Path(__file__).resolve().parents[3] / "docs" / "limits.md"
SEGMENT_BYTES = 10
"""More than what says where a segment goes and how long it is."""


def inspected(text: str) -> Inspection:
    return inspect(bytes(wasmtime.wat2wasm(text)))


def filled(size: int) -> str:
    """A core module's fields, with an image of so many bytes."""
    return f'(memory 20) (data (i32.const 8) "{"x" * size}")'


def with_image(size: int) -> Inspection:
    return replace(inspected("(module)"), data_bytes=size)


@pytest.mark.parametrize("size", [1, 1000, 100_000])
def test_an_image_is_what_the_data_segments_hold(size: int) -> None:
    assert size < inspected(f"(module {filled(size)})").data_bytes <= size + SEGMENT_BYTES


def test_a_module_without_data_has_no_image() -> None:
    assert inspected("(module (memory 20))").data_bytes == 0


def test_a_components_image_is_that_of_all_core_instances_that_it_makes() -> None:
    module = f"(core module $m {filled(1000)}) (core module $unused {filled(5000)})"
    instances = "(core instance (instantiate $m))" * 3
    once = inspected(f"(module {filled(1000)})").data_bytes
    assert inspected(f"(component {module} {instances})").data_bytes == 3 * once


def test_an_image_without_end_is_as_large_as_can_be_said() -> None:
    text = f"(component $c0 (core module $m {filled(1000)}) (core instance (instantiate $m)))"
    for level in range(1, 80):
        inner = f"(instance (instantiate $c{level - 1}))" * 2
        text = f"(component $c{level} {text} {inner})"
    assert inspected(text).data_bytes == MAX_SIZE


@pytest.mark.parametrize(
    ("images", "backing"),
    [
        ([], Backing.HUGE_PAGES_2MI),
        ([0], Backing.HUGE_PAGES_2MI),
        ([IMAGE_MOST_BYTES], Backing.HUGE_PAGES_2MI),
        ([IMAGE_MOST_BYTES + 1], Backing.BASE_PAGES),
        ([10, IMAGE_MOST_BYTES + 1, 20], Backing.BASE_PAGES),
    ],
)
def test_the_largest_image_decides(images: list[int], backing: Backing) -> None:
    choice = backing_for(map(with_image, images))
    assert (choice.backing, choice.image_bytes) == (backing, max(images, default=0))


@pytest.mark.parametrize(("size", "agreeing"), [(0, ["HugePages2Mi", "HugePages1Gi"]), (MAX_SIZE, ["BasePages"])])
def test_a_pool_agrees_if_it_has_such_pages(size: int, agreeing: list[str]) -> None:
    choice = backing_for([with_image(size)])
    assert [it.value for it in Backing if choice.agrees_with(it)] == agreeing


def test_the_document_says_the_same_number() -> None:
    assert f"more than {IMAGE_MOST_BYTES // 1024**2} MiB" in DOCUMENT.read_text()
