"""Which proxy a request goes through, by HTTPS_PROXY, HTTP_PROXY and NO_PROXY. As Go programs read them: with CIDRs.

aiohttp's own reading is not used: it takes passwords from ~/.netrc along with it, and knows no CIDRs.
"""

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from urllib.parse import unquote

from yarl import URL

from wasmpool_agent.oci.errors import SettingsInvalidError


@dataclass(frozen=True, slots=True)
class Proxy:
    """`url` is without the password; `authorization` is a header's value."""

    url: URL
    authorization: str | None = None

    def __repr__(self) -> str:
        return f"Proxy({self.url})"


class Proxies:
    """Of an environment."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._by_scheme = {
            scheme: _proxy(name, value)
            for scheme in ("http", "https")
            for name in (f"{scheme}_proxy", f"{scheme.upper()}_PROXY")
            if (value := environment.get(name, "").strip())
        }
        text = environment.get("NO_PROXY") or environment.get("no_proxy") or ""
        self._exempt = tuple(entry.strip().lower() for entry in text.split(",") if entry.strip())

    def of(self, url: URL) -> Proxy | None:
        """None: it is asked directly, as loopback always is."""
        host = (url.raw_host or "").lower()
        if host == "localhost" or _is_loopback(host) or any(_matches(entry, host, url.port) for entry in self._exempt):
            return None
        return self._by_scheme.get(url.scheme)


def _proxy(name: str, value: str) -> Proxy:
    try:
        url = URL(value if "://" in value else f"http://{value}")
        host = url.host
    except ValueError:
        host, url = None, URL()
    if not host or url.scheme not in {"http", "https"}:
        # NB: the value may have a password in it
        raise SettingsInvalidError(f"{name} is no URL of a proxy; allowed is http://[user:password@]host:port")
    if url.user is None:
        return Proxy(url.origin())
    login = f"{unquote(url.raw_user or '')}:{unquote(url.raw_password or '')}"
    return Proxy(url.origin(), f"Basic {base64.b64encode(login.encode()).decode()}")


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def _matches(entry: str, host: str, port: int | None) -> bool:
    if entry == "*":
        return True
    try:
        return ip_address(host) in ip_network(entry, strict=False)
    except ValueError:
        pass
    name, colon, wanted = entry.rpartition(":")
    if colon and wanted.isascii() and wanted.isdigit():
        entry = name.removeprefix("[").removesuffix("]")
        if port != int(wanted):
            return False
    suffix = entry.removeprefix("*").removeprefix(".")
    return host.endswith(f".{suffix}") or (host == suffix and not entry.startswith(("*", ".")))
