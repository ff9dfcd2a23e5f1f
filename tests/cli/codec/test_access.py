"""Sessions of the codec server: signed, for a time, and only while the token is still let in."""

import hashlib
from datetime import UTC, datetime, timedelta

from cli.codec.access import SESSION_LIFETIME, Access
from workflows.shared.encryption import PayloadKeys

NOW = datetime(2026, 11, 26, 12, tzinfo=UTC)
KEYS = PayloadKeys.parse(f"k1:{'1a' * 32},k2:{'2b' * 32}")


def access(*tokens: str, keys: PayloadKeys = KEYS) -> Access:
    return Access.of([hashlib.sha256(token.encode()).hexdigest() for token in tokens], keys)


def test_a_token_that_is_listed_is_let_in_and_no_other() -> None:
    assert access("alice's", "bob's").by_token("alice's") is not None
    for token in ("", "alice", "alice's ", hashlib.sha256(b"alice's").hexdigest()):
        assert access("alice's").by_token(token) is None


def session(of: Access, token: str) -> str:
    name = of.by_token(token)
    assert name is not None
    return of.session(name, NOW)


def test_a_session_lasts_for_half_a_day() -> None:
    ours = access("alice's")
    given = session(ours, "alice's")
    assert ours.by_session(given, NOW) == ours.by_token("alice's")
    assert ours.by_session(given, NOW + SESSION_LIFETIME - timedelta(seconds=1)) is not None
    assert ours.by_session(given, NOW + SESSION_LIFETIME) is None


def test_a_session_ends_with_its_token_and_with_the_key() -> None:
    given = session(access("alice's", "bob's"), "alice's")
    assert access("bob's").by_session(given, NOW) is None
    rotated = PayloadKeys.parse(f"k2:{'2b' * 32},k1:{'1a' * 32}")
    assert access("alice's", keys=rotated).by_session(given, NOW) is None


def test_a_session_that_was_changed_or_made_up_is_none() -> None:
    ours = access("alice's", "bob's")
    name, until, signature = session(ours, "alice's").split(".")
    other = ours.by_token("bob's")
    for made_up in (
        "",
        name,
        f"{name}.{until}.{'0' * 64}",
        f"{other}.{until}.{signature}",
        f"{name}.{int(until) + 1}.{signature}",
        f"{name}.{until}.{signature}.",
        f"{name}.٣.{signature}",
    ):
        assert ours.by_session(made_up, NOW) is None


def test_a_session_holds_nothing_of_the_token() -> None:
    given = session(access("alice's"), "alice's")
    assert "alice's" not in given
    assert hashlib.sha256(b"alice's").hexdigest() not in given
