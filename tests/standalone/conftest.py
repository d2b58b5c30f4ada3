"""A directory that nobody's user can read."""

from collections.abc import Iterator

import pytest

from tests.standalone.agent import Files, files_of_its_own


@pytest.fixture
def files() -> Iterator[Files]:
    """Of this test."""
    with files_of_its_own() as made:
        yield made
