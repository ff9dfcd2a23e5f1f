"""Who may have payloads decrypted: holders of a token, and browsers that logged in with one.

Pure: time is an argument. A token is known by its SHA-256 only, and a session holds no part of it.
"""

import hashlib
import hmac
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from workflows.shared.encryption import PayloadKeys

SESSION_LIFETIME = timedelta(hours=12)
"""A day's work; after it, one logs in again."""

HOLDER_NAME_DIGITS = 16
"""So many digits of its token's hash name an operator, in sessions and logs: they lead to no token."""

_SESSION = re.compile(rf"([0-9a-f]{{{HOLDER_NAME_DIGITS}}})\.([0-9]{{1,12}})\.([0-9a-f]{{64}})")


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """The tokens that are let in, and the key that signs sessions."""

    hashes: frozenset[str] = field(repr=False)
    """SHA-256 of the tokens, in hexadecimal."""
    session_key: bytes = field(repr=False)

    @classmethod
    def of(cls, hashes: Iterable[str], keys: PayloadKeys) -> "Access":
        """Sessions are signed with what whoever holds it needs no session for: the first payload key.

        So all processes take each other's sessions, and a rotation ends them.
        """
        first = next(iter(keys.keys.values()))
        key = hmac.new(first, b"onebox codec session", hashlib.sha256).digest()
        return cls(hashes=frozenset(hashes), session_key=key)

    def by_token(self, token: str) -> str | None:
        """The name of the token's holder, if it is let in."""
        digest = hashlib.sha256(token.encode()).hexdigest()
        return digest[:HOLDER_NAME_DIGITS] if digest in self.hashes else None

    def session(self, name: str, now: datetime) -> str:
        """A session for someone who has shown a token."""
        said = f"{name}.{int((now + SESSION_LIFETIME).timestamp())}"
        return f"{said}.{self._signature(said)}"

    def by_session(self, session: str, now: datetime) -> str | None:
        """The name of a session's holder, while it lasts and the token is still let in."""
        match = _SESSION.fullmatch(session)
        if match is None or not hmac.compare_digest(self._signature(f"{match[1]}.{match[2]}"), match[3]):
            return None
        if int(match[2]) <= now.timestamp():
            return None
        return match[1] if any(each.startswith(match[1]) for each in self.hashes) else None

    def _signature(self, said: str) -> str:
        return hmac.new(self.session_key, said.encode(), hashlib.sha256).hexdigest()
