"""Pages under the regions: ordinary ones everywhere, huge ones where this machine can give some."""

import pytest

from tests.conformance.paging import Paging
from tests.hugepages.reservation import HUGE_PAGE_BYTES
from tests.unit.agent.conftest import borrowed

__all__ = ["borrowed"]


@pytest.fixture(params=["4Ki", "2Mi-of-4Ki", pytest.param("2Mi", marks=pytest.mark.hugepages)])
def paging(request: pytest.FixtureRequest) -> Paging:
    """What the region consists of, and what it counts in: a slot that grows by less than a page has a tail."""
    match request.param:
        case "4Ki":
            return Paging(page_bytes=4096)
        case "2Mi-of-4Ki":
            return Paging(page_bytes=HUGE_PAGE_BYTES, ordinary_memory=True)
        case _:
            request.getfixturevalue("borrowed")
            return Paging(page_bytes=HUGE_PAGE_BYTES)
