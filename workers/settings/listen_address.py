"""Listen addresses in settings: parsing, validation, and a check for conflicts."""

from collections.abc import Mapping
from ipaddress import ip_address
from itertools import combinations
from typing import Annotated

from pydantic import AfterValidator, Field

MAX_PORT = 65_535

WILDCARD_HOSTS = frozenset({"", "0.0.0.0", "::"})  # noqa: S104 - compared, not bound


def split_host_port(bind: str) -> tuple[str, int]:
    """Host and port."""
    host, _, port = bind.rpartition(":")
    return host.strip("[]"), int(port)


def _valid_port(bind: str) -> str:
    if split_host_port(bind)[1] > MAX_PORT:
        raise ValueError(f"a port is at most {MAX_PORT}")
    return bind


def _valid_ip_address(bind: str) -> str:
    try:
        ip_address(split_host_port(bind)[0])
    except ValueError:
        raise ValueError("must be an IP address and a port; Temporal's SDK accepts no host name") from None
    return bind


ListenAddress = Annotated[str, Field(pattern=r"^\S+:[0-9]{1,5}$"), AfterValidator(_valid_port)]
"""Host and port."""

ListenIpAddress = Annotated[ListenAddress, AfterValidator(_valid_ip_address)]
"""An IP address and a port."""


def require_distinct(binds: Mapping[str, str | None]) -> None:
    """Raise `ValueError` if two settings name the same port on the same host."""
    given = [(name, *split_host_port(bind)) for name, bind in binds.items() if bind is not None]
    for (one, host, port), (other, other_host, other_port) in combinations(given, 2):
        conflict = host == other_host or not WILDCARD_HOSTS.isdisjoint((host, other_host))
        if port == other_port and conflict:
            raise ValueError(f"{one} and {other} are the same address: give each its own port")
