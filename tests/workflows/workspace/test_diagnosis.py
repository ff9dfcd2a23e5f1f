"""Why a box is not registered: what was seen, in words that an operator can act on."""

from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.workflows.workspace.scenarios import T0, after
from workflows.workspace.diagnosis import CREDENTIAL_LOST, diagnose
from workflows.workspace.state import RegisterCallCount, RegistrationStatus

BOX, ELSEWHERE = "10.0.0.7", "10.9.9.9"


def call(code: str, *, own: bool = True, count: int = 1, minute: int = 0) -> RegisterCallCount:
    return RegisterCallCount(
        code=code,
        count=count,
        from_box=own,
        last_at=T0 + timedelta(minutes=minute),
        source=BOX if own else ELSEWHERE,
    )


@pytest.mark.parametrize(
    ("calls", "code", "says"),
    [
        ((), "never_called", "never called"),
        ((call("superseded", own=False),), "never_called", "never called"),
        ((call("token_missing", count=4),), "called_without_evidence", f"4 times, last from {BOX} (its own"),
        ((call("token_invalid"),), "wrong_evidence", "a credential that proves nothing"),
        ((call("instance_not_ready"),), "launch_not_recorded", "come again"),
        # a wrong credential says more than a call without one
        ((call("token_missing", count=4), call("token_invalid", minute=1)), "wrong_evidence", "5 times"),
        # what others did says nothing where the box itself called
        ((call("token_missing"), call("token_invalid", own=False)), "called_without_evidence", BOX),
        ((call("token_missing", own=False),), "called_without_evidence", "not the box's recorded address"),
    ],
)
def test_the_calls_tell_why(calls: tuple[RegisterCallCount, ...], code: str, says: str) -> None:
    why = diagnose(RegistrationStatus(calls=calls))
    assert why.code == code
    assert says in why.message


def test_calls_from_elsewhere_hint_at_a_proxy() -> None:
    elsewhere = diagnose(RegistrationStatus(calls=(call("token_missing", own=False),)))
    own = diagnose(RegistrationStatus(calls=(call("token_missing"),)))
    assert "TRUSTED_PROXIES" in elsewhere.hint
    assert "TRUSTED_PROXIES" not in own.hint


@pytest.mark.parametrize(("unused", "code"), [(True, "token_never_used"), (False, "not_beating")])
def test_a_registered_box_is_not_explained_by_its_calls(unused: bool, code: str) -> None:
    seen = RegistrationStatus(registered_at=after(1), token_unused=unused, calls=(call("token_missing"),))
    assert diagnose(seen).code == code


PROTOCOL = Path(__file__).parents[3] / "docs" / "protocol.md"


def test_every_reason_is_explained_to_operators() -> None:
    told = PROTOCOL.read_text()
    seen = [
        RegistrationStatus(calls=(call(code),))
        for code in ("token_missing", "token_invalid", "instance_not_ready")
    ]
    seen += [
        RegistrationStatus(),
        *(RegistrationStatus(registered_at=T0, token_unused=it) for it in (True, False)),
    ]
    reasons = [*map(diagnose, seen), CREDENTIAL_LOST]
    assert len({why.code for why in reasons}) == 7
    assert [why.code for why in reasons if f"`{why.code}`" not in told] == []


@given(
    st.builds(
        RegistrationStatus,
        registered_at=st.none() | st.just(T0),
        token_unused=st.booleans(),
        calls=st.lists(
            st.builds(
                call,
                st.sampled_from(["token_missing", "token_invalid", "instance_not_ready", "superseded"]),
                own=st.booleans(),
                count=st.integers(1, 9),
                minute=st.integers(0, 9),
            ),
            max_size=6,
        ).map(tuple),
    )
)
def test_whatever_was_seen_there_are_words_for_it(seen: RegistrationStatus) -> None:
    why = diagnose(seen)
    assert why.message
    assert why.hint.endswith(".")
    assert why.reason.lower() == why.code.replace("_", "")
