"""Who has supplied which module, on disk: what is in the cache opens to nobody who could not have it from its source.

Three kinds of records, each made only after the bytes of the module came:

supplied  this repository has given this blob; that another registry's manifest names the same digest proves nothing
pulled    this credential has pulled this image, as the kubelet writes down since its KEP 2535
read      a ConfigMap of this namespace has had this module

Of a credential only its fingerprint goes into a file's name. What is lost here costs one download.
"""

import hashlib
import logging
import os
from pathlib import Path
from typing import Final

MOST_RECORDS: Final = 20_000
_VERSION: Final = "2"
"""Records of the first did not say that the bytes had come from there."""

log = logging.getLogger(__name__)


class Pulled:
    """Owns `<cache>/pulled`. A record that can't be written, or read, is as if there were none: that is logged.

    A file's modification time is when it was last used; beyond `most_records` the longest unused go first.
    """

    def __init__(self, cache: Path, most_records: int = MOST_RECORDS) -> None:
        self._directory = cache / "pulled"
        self._directory.mkdir(parents=True, exist_ok=True)
        self._most = most_records

    def supplied(self, repository: str, blob: str) -> str | None:
        """The digest of the module that this repository gave as this blob: a layer, or an image, by its own digest."""
        return self._look("supplied", repository, blob)

    def learn_supplied(self, repository: str, blob: str, digest: str) -> None:
        """It has, whole and checked."""
        self._keep(digest, "supplied", repository, blob)

    def module(self, image: str, fingerprint: str) -> str | None:
        """The digest of the module in this image (by its own digest), if this credential has pulled it."""
        return self._look("pulled", image, fingerprint)

    def learn(self, image: str, fingerprint: str, digest: str) -> None:
        """It has, and the image's repository has supplied this module."""
        self._keep(digest, "pulled", image, fingerprint)

    def was_read(self, namespace: str, digest: str) -> bool:
        """Whether a ConfigMap of this namespace has had this module."""
        return self._look("read", namespace, digest) == digest

    def learn_read(self, namespace: str, digest: str) -> None:
        """One has."""
        self._keep(digest, "read", namespace, digest)

    def _look(self, *key: str) -> str | None:
        path = self._path(key)
        try:
            found = path.read_text(encoding="ascii", errors="replace")
            os.utime(path)  # for `_make_room`: in use
        except FileNotFoundError:
            return None
        except OSError as error:
            log.warning("a record of what was pulled can't be read: %s", error)
            return None
        return found or None

    def _keep(self, digest: str, *key: str) -> None:
        if self._look(*key) == digest:
            return
        try:
            # NB: a record that a crash leaves half written names no module, which is as if there were none.
            self._path(key).write_text(digest, encoding="ascii")
            self._make_room()
        except OSError as error:
            log.warning("what was pulled can't be written down: %s", error)

    def _make_room(self) -> None:
        records: list[tuple[float, str]] = []
        with os.scandir(self._directory) as entries:
            for entry in entries:
                try:
                    records.append((entry.stat().st_mtime, entry.path))
                except FileNotFoundError:  # another thread removed it
                    continue
        if len(records) > self._most:
            for _, oldest in sorted(records)[: max(1, self._most // 10)]:
                Path(oldest).unlink(missing_ok=True)

    def _path(self, key: tuple[str, ...]) -> Path:
        named = "\n".join((_VERSION, *key))  # no part has line breaks: names, digests
        return self._directory / hashlib.sha256(named.encode()).hexdigest()
