"""A directory that nobody's user can read."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.standalone.agent import Files


@pytest.fixture
def files() -> Iterator[Files]:
    """NB: not pytest's tmp_path, which only its owner may enter."""
    root = Path(tempfile.mkdtemp(prefix="wasmpool-test-"))
    root.chmod(0o755)
    yield Files(root)
    shutil.rmtree(root, ignore_errors=True)
