"""Where nothing is ever asked: a workload's image field must not lead to a cloud's metadata service."""

from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Final

_NEVER: Final = tuple(
    (ip_network(network), why)
    for network, why in (
        ("169.254.0.0/16", "is link-local, where metadata services are"),
        ("fe80::/10", "is link-local"),
        ("fec0::/10", "is site-local"),
        ("fd00:ec2::254/128", "is a metadata service"),
        ("fd00:ec2::23/128", "is a metadata service"),
        ("fd20:ce::254/128", "is a metadata service"),
        ("fd00:c1::a9fe:a9fe/128", "is a metadata service"),
        ("fd00:42::42/128", "is a metadata service"),
        ("100.100.100.200/32", "is a metadata service"),
        ("168.63.129.16/32", "is a metadata service"),
        ("192.0.0.192/32", "is a metadata service"),
        ("0.0.0.0/8", "is this host"),
        ("::/128", "is this host"),
        ("224.0.0.0/4", "is multicast"),
        ("ff00::/8", "is multicast"),
        ("255.255.255.255/32", "is broadcast"),
    )
)
_NAT64: Final = ip_network("64:ff9b::/96")
_LOCAL_NAT64: Final = ip_network("64:ff9b:1::/48")
_COMPATIBLE: Final = ip_network("::/96")


def why_forbidden(text: str, *, loopback: bool) -> str:
    """In words; empty for an address that may be asked. `loopback`: whether it was given by the pool's owner."""
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return "is no address"
    for one in _meant(address):
        if one.is_loopback and not loopback:
            return "is loopback, and no registry's settings name it"
        for network, why in _NEVER:
            if one.version == network.version and one in network:
                return why
    return ""


def _meant(address: IPv4Address | IPv6Address) -> tuple[IPv4Address | IPv6Address, ...]:
    """It, and the IPv4 address that it stands for."""
    if isinstance(address, IPv4Address):
        return (address,)
    inner = [address.ipv4_mapped, address.sixtofour, *(address.teredo or ())]
    number = int(address)
    if address in _NAT64 or address in _LOCAL_NAT64 or (address in _COMPATIBLE and number > 1):
        inner.append(IPv4Address(number & 0xFFFFFFFF))
    if address in _LOCAL_NAT64:  # RFC 6052: after 48 bits, around the eight that are always zero
        inner.append(IPv4Address((number >> 64 & 0xFFFF) << 16 | number >> 40 & 0xFFFF))
    return (address, *(one for one in inner if one is not None))
