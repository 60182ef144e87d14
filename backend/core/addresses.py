"""Whether a caller's address is within networks that a setting names."""

from collections.abc import Iterable
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address

Network = IPv4Network | IPv6Network


def is_within(host: str, networks: Iterable[Network]) -> bool:
    """IPv4 addresses that come as IPv6 are IPv4; a Unix socket has no address, and is in none."""
    try:
        address = ip_address(host)
    except ValueError:
        return False
    if isinstance(address, IPv6Address) and address.ipv4_mapped:
        address = address.ipv4_mapped
    return any(address in network for network in networks)
