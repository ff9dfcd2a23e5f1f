"""Access control of the codec server: tokens, and signed sessions of browsers.

Tokens are stored as SHA-256 only. A session contains no part of its token.
"""

import hashlib
import hmac
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from workflows.shared.encryption import PayloadKeys

SESSION_LIFETIME = timedelta(hours=12)
"""A working day."""

HOLDER_NAME_DIGITS = 16
"""An operator's name in sessions and logs is this many digits of the token's hash."""

_SESSION = re.compile(rf"([0-9a-f]{{{HOLDER_NAME_DIGITS}}})\.([0-9]{{1,12}})\.([0-9a-f]{{64}})")


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """The accepted tokens, and the key that signs sessions."""

    hashes: frozenset[str] = field(repr=False)
    """SHA-256 of the tokens, in hexadecimal."""
    session_key: bytes = field(repr=False)

    @classmethod
    def of(cls, hashes: Iterable[str], keys: PayloadKeys) -> "Access":
        """Derive the signing key from the first payload key.

        All processes therefore accept each other's sessions, and a key rotation ends them. A holder of the
        payload key needs no session anyway.
        """
        first = next(iter(keys.keys.values()))
        key = hmac.new(first, b"onebox codec session", hashlib.sha256).digest()
        return cls(hashes=frozenset(hashes), session_key=key)

    def by_token(self, token: str) -> str | None:
        """The name of the token's holder; None if the token is not accepted."""
        digest = hashlib.sha256(token.encode()).hexdigest()
        return digest[:HOLDER_NAME_DIGITS] if digest in self.hashes else None

    def session(self, name: str, now: datetime) -> str:
        """A new session for the holder of a token."""
        signed = f"{name}.{int((now + SESSION_LIFETIME).timestamp())}"
        return f"{signed}.{self._signature(signed)}"

    def by_session(self, session: str, now: datetime) -> str | None:
        """The name of the session's holder; None if it expired, is forged, or its token is not accepted."""
        match = _SESSION.fullmatch(session)
        if match is None or not hmac.compare_digest(self._signature(f"{match[1]}.{match[2]}"), match[3]):
            return None
        if int(match[2]) <= now.timestamp():
            return None
        return match[1] if any(each.startswith(match[1]) for each in self.hashes) else None

    def _signature(self, signed: str) -> str:
        return hmac.new(self.session_key, signed.encode(), hashlib.sha256).hexdigest()
