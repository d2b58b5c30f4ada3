"""Pages under the allocators' tests: ordinary ones everywhere, huge ones where this machine can give some."""

from collections.abc import Iterator

import pytest

from tests.hugepages.reservation import HUGE_PAGE_BYTES, borrowed_huge_pages


@pytest.fixture(scope="session")
def borrowed() -> Iterator[None]:
    """Enough for the largest pool of these tests, twice: the last test's engine may still hold its region."""
    with borrowed_huge_pages(48):
        yield


@pytest.fixture(params=["4Ki", pytest.param("2Mi", marks=pytest.mark.hugepages)])
def page_bytes(request: pytest.FixtureRequest) -> int:
    """Bytes of the pages under the region."""
    if request.param == "4Ki":
        return 4096
    request.getfixturevalue("borrowed")
    return HUGE_PAGE_BYTES
