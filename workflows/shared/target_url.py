"""The URL at which the control plane calls a box. Guards against server-side request forgery (SSRF).

The host is always the address that the control plane recorded. Only scheme, port and path come from the URL
that the box registers. Standard library only.
"""

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from urllib.parse import urlsplit

_METADATA = frozenset(map(ip_address, ("169.254.169.254", "fd00:ec2::254")))
"""EC2's instance metadata service. Its IPv6 address is a unique local one, so no other rule covers it."""


class InvalidTarget(ValueError):
    """The box cannot be called. `code` is for programs, the text for operators."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, slots=True)
class Target:
    """Where to call a box."""

    url: str
    """The URL to call; its host is the recorded address."""
    host: str
    """The host in the registered URL, for the Host header and the certificate check."""


def target_url(
    private_ip: str | IPv4Address | IPv6Address | None, url: str | None, *, allow_loopback: bool
) -> Target:
    """The recorded address with scheme, port and path of the registered URL. Raises `InvalidTarget`.

    `allow_loopback` is only for boxes that are processes on this machine. Elsewhere it would let a box direct
    calls at the control plane itself.
    """
    if not url:
        raise InvalidTarget("no_url", "the box registered no URL (poll mode): it cannot be called")
    if private_ip is None:
        raise InvalidTarget("no_address", "the box's address is not recorded")
    address = ip_address(str(private_ip))
    if is_forbidden(address, allow_loopback=allow_loopback):
        raise InvalidTarget("forbidden_address", f"{address} is not allowed as the address of a box")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise InvalidTarget("no_url", "the registered URL is malformed") from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise InvalidTarget("no_url", "the registered URL is neither http nor https")
    if parts.hostname.startswith("."):
        raise InvalidTarget(
            "no_url", "the registered URL's host starts with a dot"
        )  # invalid in a certificate
    host = f"[{address}]" if isinstance(address, IPv6Address) else str(address)
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    default = 443 if parts.scheme == "https" else 80
    return Target(url=f"{parts.scheme}://{host}:{port or default}{path}", host=parts.hostname)


def is_forbidden(address: IPv4Address | IPv6Address, *, allow_loopback: bool) -> bool:
    """Whether the control plane must never call this address."""
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
