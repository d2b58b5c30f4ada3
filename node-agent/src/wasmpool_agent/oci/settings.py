"""How registries are reached, where that is not plain HTTPS with the system's certificate authorities."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from yarl import URL

from wasmpool_agent.oci.errors import SettingsInvalidError
from wasmpool_agent.oci.reference import (
    DOCKER_HUB,
    DOCKER_HUB_SERVER,
    Reference,
    canonical_host,
    is_host,
    is_repository,
)

_DEFAULT_PORTS: Final = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class RegistrySettings:
    """Of one registry, by the host that stands in a reference.

    `ca_bundle`: certificate authorities for it alone, PEM, in place of the system's. `mirrors`: asked before it, in
    this order, `host[:port][/prefix]` each; how a mirror is reached stands in its own settings.
    """

    host: str
    plain_http: bool = False
    ca_bundle: bytes | None = None
    mirrors: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Limits:
    """What a pull may take. `attempts`: for what is temporary; of a download, without a byte more.

    `stall_seconds`: for so long the other side may say nothing. `least_bytes_per_second`: of a download, averaged over
    `slow_seconds`, however often it is cut. `unpack_seconds`: for an image's layers.
    """

    resolve_seconds: float = 60.0
    fetch_seconds: float = 1800.0
    connect_seconds: float = 10.0
    stall_seconds: float = 30.0
    attempts: int = 4
    first_wait_seconds: float = 0.5
    most_wait_seconds: float = 30.0
    least_bytes_per_second: float = 16 * 1024.0
    slow_seconds: float = 30.0
    unpack_seconds: float = 20.0


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a repository is asked for. `registry`: as in a reference, for settings, credentials and messages."""

    registry: str
    repository: str
    plain_http: bool

    @property
    def name(self) -> str:
        """For messages."""
        return f"{self.registry}/{self.repository}"

    def url(self, kind: str, what: str) -> URL:
        """Of `manifests` or `blobs`."""
        scheme = "http" if self.plain_http else "https"
        host = DOCKER_HUB_SERVER if self.registry == DOCKER_HUB else self.registry
        return URL(f"{scheme}://{host}/v2/{self.repository}/{kind}/{what}")


class Registries:
    """All settings, by host."""

    def __init__(self, settings: Iterable[RegistrySettings]) -> None:
        self._entries: dict[str, RegistrySettings] = {}
        for entry in settings:
            self._add(entry)
        mirrors = {_host(mirror) for entry in self._entries.values() for mirror in entry.mirrors}
        self._named = frozenset(self._entries) | mirrors

    def entries(self) -> Iterable[RegistrySettings]:
        """In the order given."""
        return self._entries.values()

    def endpoints(self, reference: Reference) -> tuple[Endpoint, ...]:
        """Its mirrors, then the registry itself."""
        entry = self._entries.get(reference.registry)
        found: list[Endpoint] = []
        for mirror in entry.mirrors if entry is not None else ():
            _, _, prefix = mirror.partition("/")
            repository = f"{prefix}/{reference.repository}" if prefix else reference.repository
            found.append(self._endpoint(_host(mirror), repository))
        return (*found, self._endpoint(reference.registry, reference.repository))

    def at(self, url: URL) -> RegistrySettings | None:
        """The settings for where this leads."""
        return next((self._entries[name] for name in _names(url) if name in self._entries), None)

    def names(self, url: URL) -> bool:
        """Whether somebody gave this host as a registry or as a mirror."""
        return any(name in self._named for name in _names(url))

    def _add(self, entry: RegistrySettings) -> None:
        if not is_host(entry.host):
            raise SettingsInvalidError(f"registries: host is {entry.host!r}, allowed is host or host:port")
        host = canonical_host(entry.host)
        if host in self._entries:
            raise SettingsInvalidError(f"registries: {host} is given twice")
        if entry.plain_http and entry.ca_bundle is not None:
            raise SettingsInvalidError(f"registries: {host}: plainHTTP and caBundle are both given; one is allowed")
        for mirror in entry.mirrors:
            name, slash, prefix = mirror.partition("/")
            if not is_host(name) or (slash and not is_repository(prefix)):
                raise SettingsInvalidError(
                    f"registries: {host}: mirrors: {mirror!r} is given, allowed is host[:port][/path]"
                )
        self._entries[host] = entry

    def _endpoint(self, host: str, repository: str) -> Endpoint:
        entry = self._entries.get(host)
        return Endpoint(host, repository, entry is not None and entry.plain_http)


def _host(mirror: str) -> str:
    return canonical_host(mirror.partition("/")[0])


def _names(url: URL) -> tuple[str, ...]:
    host = url.raw_host or ""
    host = f"[{host}]" if ":" in host else host
    with_port = f"{host}:{url.port}"
    if url.port == _DEFAULT_PORTS.get(url.scheme):
        return canonical_host(with_port), canonical_host(host)
    return (canonical_host(with_port),)
