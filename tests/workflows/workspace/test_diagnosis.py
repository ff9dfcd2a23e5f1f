"""Why a box is not registered: code, message and hint for an operator."""

from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.workflows.workspace.scenarios import T0, after
from workflows.workspace.diagnosis import CREDENTIAL_LOST, RegisterCallCount, RegistrationStatus, diagnose

BOX, OTHER = "10.0.0.7", "10.9.9.9"


def call(code: str, *, own: bool = True, count: int = 1, minute: int = 0) -> RegisterCallCount:
    return RegisterCallCount(
        code=code,
        count=count,
        from_box=own,
        last_at=T0 + timedelta(minutes=minute),
        source=BOX if own else OTHER,
    )


@pytest.mark.parametrize(
    ("calls", "code", "message"),
    [
        ((), "never_called", "never called"),
        ((call("superseded", own=False),), "never_called", "never called"),
        ((call("token_missing", count=4),), "called_without_evidence", f"4 times, last from {BOX} (its own"),
        ((call("token_invalid"),), "wrong_evidence", "an invalid credential"),
        ((call("instance_not_ready"),), "launch_not_recorded", "not recorded yet"),
        # an invalid credential explains more than a missing one
        ((call("token_missing", count=4), call("token_invalid", minute=1)), "wrong_evidence", "5 times"),
        # calls from other addresses do not matter if the box itself called
        ((call("token_missing"), call("token_invalid", own=False)), "called_without_evidence", BOX),
        ((call("token_missing", own=False),), "called_without_evidence", "not the box's recorded address"),
    ],
)
def test_the_recorded_calls_determine_the_diagnosis(
    calls: tuple[RegisterCallCount, ...], code: str, message: str
) -> None:
    why = diagnose(RegistrationStatus(calls=calls))
    assert why.code == code
    assert message in why.message


def test_calls_from_another_address_hint_at_a_proxy() -> None:
    other = diagnose(RegistrationStatus(calls=(call("token_missing", own=False),)))
    own = diagnose(RegistrationStatus(calls=(call("token_missing"),)))
    assert "TRUSTED_PROXIES" in other.hint
    assert "TRUSTED_PROXIES" not in own.hint


@pytest.mark.parametrize(("unused", "code"), [(True, "token_never_used"), (False, "not_beating")])
def test_the_calls_of_a_registered_box_do_not_matter(unused: bool, code: str) -> None:
    registration = RegistrationStatus(
        registered_at=after(1), token_unused=unused, calls=(call("token_missing"),)
    )
    assert diagnose(registration).code == code


PROTOCOL = Path(__file__).parents[3] / "docs" / "protocol.md"


def test_every_code_is_documented_for_operators() -> None:
    documentation = PROTOCOL.read_text()
    registration = [
        RegistrationStatus(calls=(call(code),))
        for code in ("token_missing", "token_invalid", "instance_not_ready")
    ]
    registration += [
        RegistrationStatus(),
        *(RegistrationStatus(registered_at=T0, token_unused=it) for it in (True, False)),
    ]
    reasons = [*map(diagnose, registration), CREDENTIAL_LOST]
    assert len({why.code for why in reasons}) == 7
    assert [why.code for why in reasons if f"`{why.code}`" not in documentation] == []


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
def test_every_status_has_a_message_and_a_hint(registration: RegistrationStatus) -> None:
    why = diagnose(registration)
    assert why.message
    assert why.hint.endswith(".")
    assert why.reason.lower() == why.code.replace("_", "")
