"""Pages under the regions: ordinary ones everywhere, huge ones where this machine can give some."""

from tests.unit.agent.conftest import borrowed, page_bytes

__all__ = ["borrowed", "page_bytes"]
