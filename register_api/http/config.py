"""The register API's configuration. The composition root fills it; nothing here reads the environment."""

import hmac
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum

from register_api.http.client_address import Network
from register_api.http.limits import Limits
from store.registration.credentials import ServerKeys


class BootstrapPolicy(StrEnum):
    """How a box without a token proves its identity (`BOOTSTRAP_POLICY`)."""

    SECRET = "secret"  # noqa: S105 - a policy's name
    """By the bootstrap secret of its user data."""
    ADDRESS = "address"
    """By that secret, or by calling from the recorded address: for images with fixed user data."""
    BOTH = "both"
    """By that secret, sent from the recorded address."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiConfig:
    """The register API's settings."""

    keys: ServerKeys
    operator_token_hashes: frozenset[bytes] = frozenset()
    """SHA-256 hashes of the operators' tokens."""
    bootstrap_policy: BootstrapPolicy = BootstrapPolicy.SECRET
    trusted_proxies: tuple[Network, ...] = ()
    """Networks whose `X-Forwarded-For` is believed. Empty: the TCP peer is the caller."""
    allow_loopback_targets: bool = False
    """Whether `discover` returns loopback addresses: for boxes that are processes on this machine."""
    heartbeat_stale: timedelta = timedelta(seconds=90)
    """Three heartbeat intervals. A workspace with an older heartbeat is not online (invariant I9)."""
    limits: Limits = field(default_factory=Limits)

    def is_operator(self, sha256: bytes | None) -> bool:
        """Whether a token with this hash is an operator's. Takes the same time for every wrong token."""
        matches = [hmac.compare_digest(sha256 or b"", known) for known in self.operator_token_hashes]
        return any(matches)
