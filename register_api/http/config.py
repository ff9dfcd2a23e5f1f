"""What the register API is told by whoever runs it.

Reads no environment: the composition root does.
"""

import hmac
from dataclasses import dataclass, field
from datetime import timedelta

from register_api.auth.identity import BootstrapPolicy
from register_api.http.client_address import Network
from register_api.http.limits import Limits
from store.registration.credentials import ServerKeys


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiConfig:
    """The register API's settings."""

    keys: ServerKeys
    operator_token_hashes: frozenset[bytes] = frozenset()
    """SHA-256 of the tokens that operators read records with."""
    bootstrap_policy: BootstrapPolicy = BootstrapPolicy.SECRET
    trusted_proxies: tuple[Network, ...] = ()
    """Whose `X-Forwarded-For` counts; none: the TCP peer is the caller."""
    allow_loopback_targets: bool = False
    """Tell others of boxes at loopback addresses: for boxes that are processes on this machine."""
    heartbeat_stale: timedelta = timedelta(seconds=90)
    """Three beats: an older one no longer shows a workspace as online (invariant I9)."""
    limits: Limits = field(default_factory=Limits)

    def is_operator(self, sha256: bytes | None) -> bool:
        """Whether a token with this hash is an operator's; as long for every wrong one."""
        matches = [hmac.compare_digest(sha256 or b"", known) for known in self.operator_token_hashes]
        return any(matches)
