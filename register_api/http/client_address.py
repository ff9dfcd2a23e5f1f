"""The IP address that a call comes from: the TCP peer's, or the one that trusted proxies report."""

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import TypeAlias

Address: TypeAlias = IPv4Address | IPv6Address
Network: TypeAlias = IPv4Network | IPv6Network

FORWARDED_FOR = "x-forwarded-for"


def client_address(peer: str | None, forwarded: Sequence[str], trusted: Sequence[Network]) -> Address | None:
    """The last address of the chain that is not a trusted proxy; None if it is missing or unreadable.

    `forwarded` holds the values of the `X-Forwarded-For` headers in their order. Each proxy appends the
    address that called it. So the list is read from its end, and only while every hop is trusted: an entry
    that the caller forged is never reached.
    """
    address = _parse_address(peer or "")
    hops = [hop for line in forwarded for hop in line.split(",")]
    while address is not None and any(address in network for network in trusted):
        address = _parse_address(hops.pop()) if hops else None
    return address


def _parse_address(text: str) -> Address | None:
    """An address without the port that some proxies add; an IPv4-mapped IPv6 address becomes IPv4."""
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
