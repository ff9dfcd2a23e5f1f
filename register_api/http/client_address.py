"""Whose address a call comes from: the TCP peer's, or what configured proxies say of it.

A function of values; an address that cannot be read is none, and none is evidence of nothing.
"""

from collections.abc import Sequence
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import TypeAlias

Address: TypeAlias = IPv4Address | IPv6Address
Network: TypeAlias = IPv4Network | IPv6Network

FORWARDED_FOR = "x-forwarded-for"

PEER_CACHE_SIZE = 10_000
"""Boxes call from the same address every 30 s."""


def client_address(peer: str | None, forwarded: Sequence[str], trusted: Sequence[Network]) -> Address | None:
    """The last address on the way that no trusted proxy vouches for.

    `forwarded` are the values of the `X-Forwarded-For` lines, in their order. Each proxy appends the address
    that it was called from, so the list is read from its end, and only as far as every hop is trusted: what
    a caller wrote into it itself is never reached. A trusted proxy that names nobody gives no address.
    """
    address = _parse_peer(peer or "")
    hops = [hop for line in forwarded for hop in line.split(",")]
    while address is not None and any(address in network for network in trusted):
        address = _parse_address(hops.pop()) if hops else None
    return address


@lru_cache(maxsize=PEER_CACHE_SIZE)
def _parse_peer(peer: str) -> Address | None:
    """What the operating system says of a connection; no caller can make it long."""
    return _parse_address(peer)


def _parse_address(text: str) -> Address | None:
    """An address, without the port that some proxies add; IPv4 in IPv6 is IPv4."""
    text = text.strip()
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ip_address(text)
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address
