"""Sessions of the codec server: signed, limited in time, and valid only while their token is accepted."""

import hashlib
from datetime import UTC, datetime, timedelta

from cli.codec.access import SESSION_LIFETIME, Access
from workflows.shared.encryption import PayloadKeys

NOW = datetime(2026, 11, 26, 12, tzinfo=UTC)
KEYS = PayloadKeys.parse(f"k1:{'1a' * 32},k2:{'2b' * 32}")


def access(*tokens: str, keys: PayloadKeys = KEYS) -> Access:
    return Access.of([hashlib.sha256(token.encode()).hexdigest() for token in tokens], keys)


def test_only_listed_tokens_are_accepted() -> None:
    assert access("alice's", "bob's").by_token("alice's") is not None
    for token in ("", "alice", "alice's ", hashlib.sha256(b"alice's").hexdigest()):
        assert access("alice's").by_token(token) is None


def session(of: Access, token: str) -> str:
    name = of.by_token(token)
    assert name is not None
    return of.session(name, NOW)


def test_a_session_expires() -> None:
    codec = access("alice's")
    issued = session(codec, "alice's")
    assert codec.by_session(issued, NOW) == codec.by_token("alice's")
    assert codec.by_session(issued, NOW + SESSION_LIFETIME - timedelta(seconds=1)) is not None
    assert codec.by_session(issued, NOW + SESSION_LIFETIME) is None


def test_a_session_ends_with_its_token_and_with_the_key() -> None:
    issued = session(access("alice's", "bob's"), "alice's")
    assert access("bob's").by_session(issued, NOW) is None
    rotated = PayloadKeys.parse(f"k2:{'2b' * 32},k1:{'1a' * 32}")
    assert access("alice's", keys=rotated).by_session(issued, NOW) is None


def test_a_forged_session_is_invalid() -> None:
    codec = access("alice's", "bob's")
    name, until, signature = session(codec, "alice's").split(".")
    other = codec.by_token("bob's")
    for forged in (
        "",
        name,
        f"{name}.{until}.{'0' * 64}",
        f"{other}.{until}.{signature}",
        f"{name}.{int(until) + 1}.{signature}",
        f"{name}.{until}.{signature}.",
        f"{name}.٣.{signature}",
    ):
        assert codec.by_session(forged, NOW) is None


def test_a_session_contains_no_part_of_the_token() -> None:
    issued = session(access("alice's"), "alice's")
    assert "alice's" not in issued
    assert hashlib.sha256(b"alice's").hexdigest() not in issued
