"""Which credentials have pulled which image, on disk: a module in the cache opens to nobody who could not pull it.

Kept by image and by credential, as the kubelet does since its KEP 2535. Of a credential only its fingerprint goes into
a file's name. What is lost here costs one question to the registry.
"""

import hashlib
from pathlib import Path
from typing import Final

MOST_RECORDS: Final = 20_000


class Pulled:
    """Owns `<cache>/pulled`. Raises OSError where the disk does."""

    def __init__(self, cache: Path) -> None:
        self._directory = cache / "pulled"
        self._directory.mkdir(parents=True, exist_ok=True)

    def module(self, image: str, fingerprint: str) -> str | None:
        """The digest of the module in this image (by its own digest), if this credential has pulled it."""
        try:
            return self._path(image, fingerprint).read_text(encoding="ascii", errors="replace") or None
        except FileNotFoundError:
            return None

    def learn(self, image: str, fingerprint: str, digest: str) -> None:
        """It has, and found this module."""
        path = self._path(image, fingerprint)
        if self.module(image, fingerprint) == digest:
            return
        # NB: a record that a crash leaves half written names no module, which is as if there were none.
        path.write_text(digest, encoding="ascii")
        records = list(self._directory.iterdir())
        if len(records) > MOST_RECORDS:
            for oldest in sorted(records, key=lambda it: it.stat().st_mtime)[: MOST_RECORDS // 10]:
                oldest.unlink(missing_ok=True)

    def forget(self, image: str, fingerprint: str) -> None:
        """The registry refuses it now."""
        self._path(image, fingerprint).unlink(missing_ok=True)

    def _path(self, image: str, fingerprint: str) -> Path:
        return self._directory / hashlib.sha256(f"{image}\n{fingerprint}".encode()).hexdigest()
