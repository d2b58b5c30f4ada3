"""The images' build contexts, as docs/quickstart.md has them made: what a Containerfile copies, and nothing else."""

from pathlib import Path

import pytest

from tests.cluster import images
from tests.cluster.console import ClusterError
from tests.cluster.images import IMAGES, Image

pytestmark = pytest.mark.cluster


@pytest.mark.parametrize("image", IMAGES, ids=lambda image: image.name)
def test_a_context_holds_what_the_containerfile_copies(image: Image, tmp_path: Path) -> None:
    images.fill_context(image, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"Containerfile", "requirements.txt", "third-party", "own"}
    copied = (tmp_path / "Containerfile").read_text()
    assert "COPY requirements.txt third-party/ /wheels/" in copied
    assert "COPY own/ /own/" in copied
    own = {wheel.name.partition("-")[0] for wheel in (tmp_path / "own").iterdir()}
    assert own == {"wasmpool_api", {"operator": "wasmpool_operator", "agent": "wasmpool_node_agent"}[image.name]}
    assert [wheel for wheel in (tmp_path / "third-party").iterdir() if wheel.name.startswith("pip-")]
    with pytest.raises(ClusterError, match="is not empty"):
        images.fill_context(image, tmp_path)
