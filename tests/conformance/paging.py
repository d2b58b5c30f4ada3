"""The pages under a region, as the tests name them."""

from typing import Required, TypedDict


class Paging(TypedDict, total=False):
    """See tests.allocation.open_pool, whose arguments these are."""

    page_bytes: Required[int]
    ordinary_memory: bool
