"""Which pages serve guests best: a rule over what is known of their modules before they run. Pure.

Huge pages have no copy-on-write images: each instance has the initial contents of its memories, its image, copied into
its slot, and all that its memories have grown to is wiped when it ends. Base pages map the image; what is paid for,
each time anew, is each page that the guest touches.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from wasmpool_api.instance_pool import Backing
from wasmpool_api.wasm import Inspection

IMAGE_MOST_BYTES: Final = 1024**2
"""The largest image with which huge pages are chosen. As docs/benchmarks.md has it, by tests/bench/backings.py: with
0.6 MiB a guest of Go takes a seventh less CPU on them, or better; 1 MiB that a guest never looks at costs it a tenth
more; 3.5 MiB cost a guest of JavaScript a quarter more, or worse."""


@dataclass(frozen=True, slots=True)
class BackingChoice:
    """`backing`: HugePages2Mi or BasePages. `image_bytes`: of the guest with the largest image."""

    backing: Backing
    image_bytes: int

    def agrees_with(self, backing: Backing) -> bool:
        """Whether a pool on that backing has what is chosen; huge pages are huge pages, of whatever size."""
        return (self.backing is Backing.BASE_PAGES) == (backing is Backing.BASE_PAGES)


def backing_for(inspections: Iterable[Inspection]) -> BackingChoice:
    """For guests that share a pool, or for one: the largest image decides."""
    image_bytes = max((it.data_bytes for it in inspections), default=0)
    fits = image_bytes <= IMAGE_MOST_BYTES
    return BackingChoice(Backing.HUGE_PAGES_2MI if fits else Backing.BASE_PAGES, image_bytes)
