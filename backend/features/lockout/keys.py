"""What failures are counted by."""

from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from ipaddress import IPv6Address, IPv6Network, ip_address

from backend.features.lockout.models import ACCOUNT, ADDRESS, PAIR


@dataclass(frozen=True, kw_only=True)
class Key:
    kind: str
    address: str
    hash: str


def network(address: str) -> str:
    """An IPv4 address as it is; of an IPv6 one its /64, of which one household has all the 2^64 addresses."""
    try:
        parsed = ip_address(address)
    except ValueError:
        return address  # a server under test has names
    if not isinstance(parsed, IPv6Address):
        return str(parsed)
    return str(parsed.ipv4_mapped or IPv6Network((int(parsed), 64), strict=False))


def _key(kind: str, address: str, *parts: str) -> Key:
    return Key(kind=kind, address=address, hash=sha256("\n".join((kind, *parts)).encode()).hexdigest())


def keys(email: str, address: str) -> Iterator[Key]:
    """The keys of one attempt. Behind a Unix socket nobody has an address: then it is the account's alone."""
    yield _key(ACCOUNT, "", email)
    if address:
        origin = network(address)
        yield _key(PAIR, origin, email, origin)
        yield _key(ADDRESS, origin, origin)
