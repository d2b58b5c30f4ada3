"""Where a workload's requests may go: what it asks for, under the ceiling of its pool. Pure.

A pattern is `host`, `*.suffix` for every name below, or `*` for all; with `:port` for that port alone, without for any.
"""

from collections.abc import Iterable
from ipaddress import ip_address


def allowed_hosts(workload: Iterable[str], pool: Iterable[str]) -> tuple[str, ...]:
    """The patterns that are left: each of the workload's with each of the pool's, where they have something in common.

    Nothing where either has none. An address of the node's own is left only where the pool has it by itself: whoever
    allows everything outside has not thought of what listens there.
    """
    ceiling = tuple(pool)
    found = (_both(one, other) for one in workload for other in ceiling if not _is_own(one) or _same_name(one, other))
    return tuple(dict.fromkeys(it for it in found if it is not None))


def is_allowed(host: str, port: int, patterns: Iterable[str]) -> bool:
    """`host`: a name or an address, in any case."""
    name = host.lower().rstrip(".")
    return any(_covers(pattern, name, port) for pattern in patterns)


def is_named(address: str, port: int, patterns: Iterable[str]) -> bool:
    """Whether one of them is this very address, not a pattern that it happens to match."""
    return any(name == address and only in {"", str(port)} for name, only in map(_parts, patterns))


def _is_own(pattern: str) -> bool:
    try:
        return ip_address(_parts(pattern)[0]).is_loopback
    except ValueError:
        return False


def _same_name(one: str, other: str) -> bool:
    return _parts(one)[0] == _parts(other)[0]


def _parts(pattern: str) -> tuple[str, str]:
    name, _, port = pattern.lower().partition(":")
    return name, port


def _covers(pattern: str, name: str, port: int) -> bool:
    wanted, only = _parts(pattern)
    return (not only or int(only) == port) and _covers_name(wanted, name)


def _covers_name(pattern: str, name: str) -> bool:
    if pattern == "*":
        return True
    return name.endswith(pattern[1:]) and len(name) > len(pattern) - 1 if pattern.startswith("*.") else name == pattern


def _both(one: str, other: str) -> str | None:
    """The pattern of what both cover."""
    (name, port), (name2, port2) = _parts(one), _parts(other)
    if port and port2 and port != port2:
        return None
    if _narrower(name, name2):
        narrow = name
    elif _narrower(name2, name):
        narrow = name2
    else:
        return None
    only = port or port2
    return f"{narrow}:{only}" if only else narrow


def _narrower(name: str, wide: str) -> bool:
    """Whether all that `name` covers is covered by `wide`."""
    if wide == "*" or name == wide:
        return True
    return wide.startswith("*.") and name != "*" and name.removeprefix("*").endswith(wide[1:]) and name != wide[2:]
