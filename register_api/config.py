"""What the register API is told by whoever runs it.

Reads no environment: the composition root does.
"""

from dataclasses import dataclass, field
from datetime import timedelta

from register_api.limits import Limits
from store.credentials import ServerKeys


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiConfig:
    """The register API's settings."""

    keys: ServerKeys
    operator_token_hashes: frozenset[bytes] = frozenset()
    """SHA-256 of the tokens that operators read records with."""
    heartbeat_stale: timedelta = timedelta(seconds=90)
    """Three beats: an older one no longer shows a workspace as online (invariant I9)."""
    limits: Limits = field(default_factory=Limits)
