"""Where traffic to a box may go: the address that the control plane recorded, never one that a box names.

Standard library only. Of what a box registers, no more than scheme, port and path is taken.
"""

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from urllib.parse import urlsplit

_METADATA = frozenset(map(ip_address, ("169.254.169.254", "fd00:ec2::254")))
"""EC2's instance metadata service: IPv4's is link-local anyhow, IPv6's is a unique local address."""


class InvalidTarget(ValueError):
    """The box cannot be called; the code is a word for programs, the text a sentence for people."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, slots=True)
class Target:
    """Where to call a box."""

    url: str
    """With the recorded address as its host."""
    host: str
    """The name that the box gave itself: what a certificate would be for."""


def target_url(
    private_ip: str | IPv4Address | IPv6Address | None, url: str | None, *, allow_loopback: bool
) -> Target:
    """The recorded address, with scheme, port and path of the registered URL; raises `InvalidTarget`.

    `allow_loopback` is for boxes that are processes on this machine; anywhere else it would let a box aim at
    whoever calls it.
    """
    if not url:
        raise InvalidTarget("no_url", "the box registered no URL (poll mode): it cannot be called")
    if private_ip is None:
        raise InvalidTarget("no_address", "the box's address is not recorded")
    address = ip_address(str(private_ip))
    if is_forbidden(address, allow_loopback=allow_loopback):
        raise InvalidTarget("forbidden_address", f"{address} is no address that a box may have")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise InvalidTarget("no_url", "the registered URL cannot be read") from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise InvalidTarget("no_url", "the registered URL is neither http nor https")
    if parts.hostname.startswith("."):
        raise InvalidTarget("no_url", "the registered URL's host is no name")  # no certificate can be for it
    host = f"[{address}]" if isinstance(address, IPv6Address) else str(address)
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    default = 443 if parts.scheme == "https" else 80
    return Target(url=f"{parts.scheme}://{host}:{port or default}{path}", host=parts.hostname)


def is_forbidden(address: IPv4Address | IPv6Address, *, allow_loopback: bool) -> bool:
    """Whether no traffic may go there, whoever recorded it."""
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    if address.is_loopback:
        return not allow_loopback
    return (
        address in _METADATA
        or address.is_link_local
        or address.is_multicast
        or address.is_unspecified
        or address.is_reserved
    )
