"""What was assigned last, and its revisions, on disk: for a start while the API server is away."""

import logging
from pathlib import Path
from urllib.parse import quote

import msgspec

from wasmpool_agent.supervisor.ports import Desired
from wasmpool_api.codec import FieldError, decode, encode
from wasmpool_api.instance_pool_node import InstancePoolNodeSpec

log = logging.getLogger(__name__)


class Remembered:
    """In one directory. NB: only a convenience. What can't be written or read is as if it had never been there."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._last = b""

    def desired(self) -> Desired | None:
        """What was assigned last; None where that is not known."""
        try:
            kept = msgspec.json.decode((self._directory / "node.json").read_bytes())
            spec = decode(InstancePoolNodeSpec, kept["spec"])
            return Desired(int(kept["generation"]), spec.assignments, confirmed=False, admission=spec.admission)
        except (OSError, msgspec.DecodeError, FieldError, KeyError, TypeError, ValueError):
            return None

    def keep_desired(self, generation: int, spec: InstancePoolNodeSpec) -> None:
        """It is this from now on."""
        self._write("node.json", {"generation": generation, "spec": encode(spec)})

    def revision(self, name: str) -> object | None:
        """A revision's data; None where it is not known."""
        try:
            return msgspec.json.decode((self._directory / _file(name)).read_bytes(), type=object)
        except (OSError, msgspec.DecodeError):
            return None

    def keep_revision(self, name: str, data: object) -> None:
        """It never changes."""
        self._write(_file(name), data)

    def forget_revisions(self, wanted: set[str]) -> None:
        """All but these."""
        kept = {_file(name) for name in wanted}
        try:
            for path in self._directory.glob("revision-*.json"):
                if path.name not in kept:
                    path.unlink(missing_ok=True)
        except OSError as error:
            log.warning("%s: %s", self._directory, error)

    def _write(self, name: str, content: object) -> None:
        try:
            data = msgspec.json.encode(content)
            path = self._directory / name
            if name == "node.json":
                if data == self._last:
                    return
                self._last = data
            self._directory.mkdir(parents=True, exist_ok=True)
            new = path.with_name(f".new-{path.name}")
            new.write_bytes(data)
            new.replace(path)
        except OSError as error:
            log.warning("%s: %s", self._directory / name, error)


def _file(revision: str) -> str:
    return "revision-" + quote(revision, safe="") + ".json"
