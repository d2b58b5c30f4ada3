"""What names an image: registry, repository, tag, digest. Grammar and short names are the distribution project's.

alpine                            docker.io/library/alpine:latest
acme/thumbs:1.4                   docker.io/acme/thumbs:1.4
ghcr.io/acme/thumbs@sha256:...    as it stands: a digest needs no tag
"""

import re
from dataclasses import dataclass, replace
from typing import Final

from wasmpool_agent.oci.errors import ReferenceInvalidError

DOCKER_HUB: Final = "docker.io"
DOCKER_HUB_NAMES: Final = frozenset({"docker.io", "index.docker.io", "registry-1.docker.io"})
DOCKER_HUB_SERVER: Final = "registry-1.docker.io"
LATEST: Final = "latest"
MOST_CHARACTERS: Final = 1024
MOST_REPOSITORY: Final = 255
DIGESTS: Final = {"sha256": 64, "sha512": 128}
"""Algorithms, and the hex digits of each."""

_LABEL: Final = r"(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])"
_HOST: Final = re.compile(rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[a-fA-F0-9:.]+\])(?::[0-9]{{1,5}})?")
_COMPONENT: Final = r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*"
_REPOSITORY: Final = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")
_TAG: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_DIGEST: Final = re.compile("|".join(f"{name}:[0-9a-f]{{{digits}}}" for name, digits in DIGESTS.items()))


@dataclass(frozen=True, slots=True)
class Reference:
    """Invariant: `parse(str(it)) == it`. Never without both tag and digest."""

    registry: str
    repository: str
    tag: str | None = None
    digest: str | None = None

    def __str__(self) -> str:
        tag = f":{self.tag}" if self.tag is not None else ""
        digest = f"@{self.digest}" if self.digest is not None else ""
        return f"{self.registry}/{self.repository}{tag}{digest}"

    @property
    def name(self) -> str:
        """Registry and repository."""
        return f"{self.registry}/{self.repository}"

    @property
    def asked(self) -> str:
        """What the registry is asked for: the digest if there is one."""
        return self.digest or self.tag or LATEST

    def with_digest(self, digest: str) -> "Reference":
        """The same, pinned. Raises ReferenceInvalidError."""
        if not is_digest(digest):
            raise ReferenceInvalidError(digest, _ALLOWED_DIGEST)
        return replace(self, digest=digest)


_ALLOWED_DIGEST: Final = "allowed as a digest is sha256:<64 hex digits> or sha512:<128 hex digits>, in lower case"


def is_digest(text: str) -> bool:
    """Of an algorithm that is known here."""
    return _DIGEST.fullmatch(text) is not None


def is_host(text: str) -> bool:
    """`host`, or `host:port`."""
    return _HOST.fullmatch(text) is not None and _port_is_possible(text)


def is_repository(text: str) -> bool:
    """A repository's name, or the first part of one."""
    return len(text) <= MOST_REPOSITORY and _REPOSITORY.fullmatch(text) is not None


def canonical_host(host: str) -> str:
    """One spelling for each registry: lower case, and one name for Docker Hub."""
    lower = host.lower()
    return DOCKER_HUB if lower in DOCKER_HUB_NAMES else lower


def parse(text: str) -> Reference:
    """Raises ReferenceInvalidError."""
    if len(text) > MOST_CHARACTERS:
        raise ReferenceInvalidError(text, f"it has {len(text)} characters, allowed are {MOST_CHARACTERS}")
    if "://" in text:
        raise ReferenceInvalidError(text, "it starts with a scheme; allowed is registry/repository:tag without one")
    rest, at, digest = text.partition("@")
    if at and not is_digest(digest):
        raise ReferenceInvalidError(text, _ALLOWED_DIGEST)
    # NB: a colon before the last slash is a port's
    path, colon, tag = rest.rpartition(":") if ":" in rest.rpartition("/")[2] else (rest, "", "")
    if colon and _TAG.fullmatch(tag) is None:
        raise ReferenceInvalidError(
            text, "allowed as a tag are up to 128 letters, digits, '_', '.' and '-', the first no '.' or '-'"
        )
    registry, repository = _split(path)
    if not is_host(registry):
        raise ReferenceInvalidError(text, f"{registry!r} is no host or host:port")
    if not _tells_itself_from_a_user(registry.lower()):
        raise ReferenceInvalidError(text, f"{registry!r} is a host without a dot; allowed is host:port then")
    if len(repository) > MOST_REPOSITORY:
        raise ReferenceInvalidError(
            text, f"the repository has {len(repository)} characters, allowed are {MOST_REPOSITORY}"
        )
    if _REPOSITORY.fullmatch(repository) is None:
        raise ReferenceInvalidError(
            text,
            f"{repository!r} is no repository; allowed are lower-case letters and digits, with '.', '_', '__' or '-' "
            "between them, in parts separated by '/'",
        )
    registry = canonical_host(registry)
    if registry == DOCKER_HUB and "/" not in repository:
        repository = f"library/{repository}"
    return Reference(registry, repository, tag if colon else (None if at else LATEST), digest if at else None)


def _split(path: str) -> tuple[str, str]:
    first, slash, rest = path.partition("/")
    # The distribution grammar: without a dot or port the first part is a user of Docker Hub, not a host.
    if slash and (_tells_itself_from_a_user(first) or first != first.lower()):
        return first, rest
    return DOCKER_HUB, path


def _tells_itself_from_a_user(host: str) -> bool:
    return "." in host or ":" in host or host == "localhost"


def _port_is_possible(host: str) -> bool:
    _, colon, port = host.removeprefix("[").rpartition("]")[2].rpartition(":")
    return not colon or 0 < int(port) <= 65535
