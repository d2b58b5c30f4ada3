"""Who asks: the credentials of dockerconfigjson documents, and which of them are for which repository.

Matching is the kubelet's: ghcr.io/acme/private before ghcr.io/acme before ghcr.io; *.acme.io, part by part; the old
https://index.docker.io/v1/. One difference: a path ends at a slash, so ghcr.io/acme is not for ghcr.io/acme-two.
"""

import base64
import binascii
import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Final

import msgspec

from wasmpool_agent.oci.errors import CredentialsInvalidError, shown
from wasmpool_agent.oci.reference import canonical_host

MOST_BYTES: Final = 1024 * 1024
MOST_ENTRIES: Final = 1000
_SALT: Final = b"wasmpool registry credential 1\0"


@dataclass(frozen=True, slots=True, repr=False)
class Credential:
    """One of: user name and password; an identity token, which a token service changes for another; a registry token,
    which is shown to the registry as it is. None of them: anonymous. `source`: where it was found, for messages.
    """

    username: str = ""
    password: str = ""
    identity_token: str = ""
    registry_token: str = ""
    source: str = field(default="", compare=False)

    def __repr__(self) -> str:
        return f"Credential({self.source or 'anonymous'}, {self.fingerprint[:12]})"

    @property
    def anonymous(self) -> bool:
        """Whether there is nothing to show."""
        return not (self.username or self.password or self.identity_token or self.registry_token)

    @property
    def fingerprint(self) -> str:
        """Tells it from others without revealing it."""
        if self.anonymous:
            return "anonymous"
        digest = hashlib.sha256(_SALT)
        for part in (self.username, self.password, self.identity_token, self.registry_token):
            data = part.encode(errors="surrogatepass")
            digest.update(len(data).to_bytes(8, "big") + data)
        return digest.hexdigest()

    @property
    def title(self) -> str:
        """For messages: never the secret."""
        return f"with the credentials of {self.source}" if not self.anonymous else "without credentials"


ANONYMOUS: Final = Credential()


@dataclass(frozen=True, slots=True)
class _Rule:
    host: str
    port: str
    path: tuple[str, ...]
    credential: Credential

    def matches(self, host: str, port: str, path: tuple[str, ...]) -> bool:
        given, wanted = host.split("."), self.host.split(".")
        return (
            self.port == port
            and len(given) == len(wanted)
            and path[: len(self.path)] == self.path
            and all(fnmatchcase(part, pattern) for part, pattern in zip(given, wanted, strict=True))
        )

    @property
    def rank(self) -> tuple[int, bool]:
        """The lowest first: the longest path, then hosts that are spelled out."""
        return -len(self.path), any(char in self.host for char in "*?[")


class _Entry(msgspec.Struct, frozen=True):
    auth: str | None = None
    username: str | None = None
    password: str | None = None
    identitytoken: str | None = None
    registrytoken: str | None = None


class _Document(msgspec.Struct, frozen=True):
    auths: dict[str, _Entry | None] | None = None


class Credentials:
    """All that one workload may show, in the order in which its Secrets were given."""

    def __init__(self, rules: Iterable[_Rule] = ()) -> None:
        self._rules = tuple(sorted(rules, key=lambda rule: rule.rank))

    def __repr__(self) -> str:
        return f"Credentials({len(self._rules)})"

    @classmethod
    def parse(cls, documents: Mapping[str, bytes | str]) -> "Credentials":
        """Of dockerconfigjson texts, by a title for messages: `Secret team/name`. Raises CredentialsInvalidError."""
        return cls(rule for source, text in documents.items() for rule in _rules(source, text))

    def for_repository(self, registry: str, repository: str) -> tuple[Credential, ...]:
        """Those to try, the most specific first, each once. Anonymous is not among them."""
        host, port = _host_and_port(canonical_host(registry))
        path = tuple(repository.split("/"))
        found = (rule.credential for rule in self._rules if rule.matches(host, port, path))
        return tuple(dict.fromkeys(found))


NO_CREDENTIALS: Final = Credentials()


def _rules(source: str, text: bytes | str) -> list[_Rule]:
    if len(text) > MOST_BYTES:
        raise CredentialsInvalidError(source, f"it has {len(text)} bytes, allowed are {MOST_BYTES}")
    try:
        # NB: `from None` here and below: an exception that shows the document would show the passwords
        document = msgspec.json.decode(text, type=_Document)
    except msgspec.ValidationError as error:
        raise CredentialsInvalidError(source, f"it is no docker config: {_where(error)}") from None
    except (msgspec.MsgspecError, RecursionError, UnicodeError, ValueError):
        raise CredentialsInvalidError(source, "it is not JSON") from None
    if document.auths is None:
        raise CredentialsInvalidError(source, "it has no auths; wanted is a docker config: {auths: {<registry>: ...}}")
    if len(document.auths) > MOST_ENTRIES:
        raise CredentialsInvalidError(source, f"auths has {len(document.auths)} entries, allowed are {MOST_ENTRIES}")
    found = (_rule(source, key, entry or _Entry()) for key, entry in document.auths.items())
    return [rule for rule in found if rule is not None]


def _where(error: msgspec.ValidationError) -> str:
    # The path has the names of fields, "$.auths[...].auth", and types; never a value.
    return shown(str(error))


def _rule(source: str, key: str, entry: _Entry) -> _Rule | None:
    where = f"auths[{shown(key, 100)}]"
    host, _, path = _without_scheme(key).partition("/")
    if not host:
        raise CredentialsInvalidError(source, f"{where} names no registry")
    username, password = entry.username or "", entry.password or ""
    if entry.auth:
        username, password = _login(source, where, entry.auth)
    credential = Credential(
        username,
        password,
        entry.identitytoken or "",
        entry.registrytoken or "",
        source=f"{source} for {shown(key, 100)}",
    )
    # An entry without any is how docker says that a helper has it: nothing that is in the document.
    if credential.anonymous:
        return None
    name, port = _host_and_port(canonical_host(host))
    return _Rule(name, port, _path(path), credential)


def _login(source: str, where: str, auth: str) -> tuple[str, str]:
    try:
        decoded = base64.b64decode("".join(auth.split()), validate=True).decode()
    except (binascii.Error, ValueError):
        raise CredentialsInvalidError(source, f"{where}: auth is not base64 of UTF-8") from None
    username, colon, password = decoded.partition(":")
    if not colon:
        raise CredentialsInvalidError(source, f"{where}: auth is not base64 of user:password: it has no colon")
    return username, password.strip("\0")


def _without_scheme(key: str) -> str:
    for scheme in ("https://", "http://"):
        if key.lower().startswith(scheme):
            return key[len(scheme) :]
    return key


def _path(text: str) -> tuple[str, ...]:
    parts = tuple(part for part in text.split("/") if part)
    # "https://registry/v1/" and "/v2/" are of the protocol, not of a repository
    return parts[1:] if parts[:1] in {("v1",), ("v2",)} else parts


def _host_and_port(host: str) -> tuple[str, str]:
    name, colon, port = host.rpartition(":")
    return (name, port) if colon and port.isascii() and port.isdigit() else (host, "")
