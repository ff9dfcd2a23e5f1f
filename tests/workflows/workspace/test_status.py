"""What operators see of a workspace: state, next action, reason, remedies; untrusted text is escaped."""

import ast
import shlex
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import workflows
from tests.workflows.workspace.scenarios import (
    T0,
    after,
    awaiting,
    box_event,
    due,
    instance_of,
    new,
    online,
    send_request,
    step_done,
)
from workflows.shared import names
from workflows.shared.markdown import code, plain, table
from workflows.workspace import conditions, lifecycle, remedies, status
from workflows.workspace.contract import FenceObserved
from workflows.workspace.enums import BoxEventKind, Phase, Step
from workflows.workspace.events import StepFailed
from workflows.workspace.requests import RequestKind
from workflows.workspace.state import Exhausted, State

REFUSED = StepFailed(
    step=Step.LAUNCH,
    code="UnauthorizedOperation",
    message="RunInstances: not *yours* | <b>really</b>",
    hint="Fix the role.",
    retryable=False,
)


def stale() -> State:
    return box_event(online(), BoxEventKind.STALE, after(minutes=5))


def failed(failure: StepFailed = REFUSED) -> State:
    state = new()
    while due(state, T0) is not Step.LAUNCH:
        state = step_done(state, T0)
    return lifecycle.apply(state, failure, T0)


def refused() -> State:
    return failed(replace(REFUSED, retryable=True, refused=True))


def not_terminated() -> State:
    """A fence that has seen the old box running for more than ten minutes."""
    state, _ = send_request(online(), T0, requested_by="admin:alice", observed_generation=1)
    state = step_done(state, T0)
    alive = FenceObserved(terminated=(), alive=(instance_of(1),), missing=())
    return lifecycle.apply(lifecycle.apply(state, alive, T0), alive, after(minutes=11))


def never_observed() -> State:
    """A fence whose calls to EC2 have all failed, so that the instances are unknown."""
    state, _ = send_request(online(), T0, requested_by="admin:alice", observed_generation=1)
    refused = replace(REFUSED, step=Step.FENCE, retryable=True)
    state = lifecycle.apply(step_done(state, T0), refused, T0)
    return lifecycle.apply(state, refused, after(minutes=11))


def stopped() -> State:
    state, _ = send_request(online(), T0, kind=RequestKind.STOP, requested_by="admin:alice")
    while due(state, T0) is not None:
        state = step_done(state, T0)
    return state


def reason(state: State) -> str | None:
    found = conditions.blocking_condition(state)
    return None if found is None else found.reason


@pytest.mark.parametrize(
    ("state", "phase", "expected"),
    [
        (online(), Phase.ONLINE, None),
        (stale(), Phase.DEGRADED, "Stale"),
        (failed(), Phase.FAILED, "NotLaunched"),
        (not_terminated(), Phase.RECREATING, "FenceUnconfirmed"),
        (never_observed(), Phase.RECREATING, "FenceUnconfirmed"),
        (awaiting(new()), Phase.AWAITING_REGISTRATION, None),
        (stopped(), Phase.STOPPED, None),
    ],
    ids=lambda it: str(it) if isinstance(it, Phase) else "",
)
def test_the_reason_is_that_of_the_blocking_condition(
    state: State, phase: Phase, expected: str | None
) -> None:
    assert (conditions.phase(state), reason(state)) == (phase, expected)
    *_, shown = status.search_attributes(state)
    assert (shown.key, shown.value) == (names.REASON, expected)


def test_the_first_condition_that_is_not_true_is_the_reason() -> None:
    state = box_event(stale(), BoxEventKind.CREDENTIAL_LOST, after(minutes=6))
    assert {it.reason for it in state.conditions} >= {"CredentialLost", "Stale"}
    assert reason(state) == "CredentialLost"


def test_the_memo_explains_problems_and_is_empty_otherwise() -> None:
    assert status.memo(online()) == {"dns_name": "ws-1.boxes.internal", "why": None, "last_error": None}
    assert status.memo(stale())["why"] == "heartbeats are missing, noticed at 22:24:00 UTC"
    assert status.memo(failed())["last_error"] == f"UnauthorizedOperation: {REFUSED.message}"


def test_the_details_show_state_next_action_and_reason() -> None:
    text = status.details(stale(), None, after(minutes=6))
    for line in (
        f"**degraded** — generation 1, instance `{instance_of(1)}`, address 10.0.0.1, `ws-1.boxes.internal`",
        "**Now:** waiting for the box to recover; the watchdog requests a recreate if it does not.",
        "**Why:** heartbeats are missing, noticed at 22:24:00 UTC (`Stale`, since 2026-06-11 22:24:00 UTC).",
        "| `HeartbeatFresh` | **false** | `06-11 22:24:00` | heartbeats are missing, noticed at 22:24:00 UTC",
    ):
        assert line in text, text


def test_the_details_show_the_last_error_with_its_hint() -> None:
    text = status.details(failed(), None, T0)
    assert "**Last error:** `UnauthorizedOperation` in *launch* of generation 1: " in text
    assert "Once, at 2026-06-11 22:19:00 UTC; Onebox does not retry. Fix the role." in text
    assert "**Now:** waiting for an operator: run request_start to retry." in text


@pytest.mark.parametrize(
    ("state", "name", "expected_input"),
    [
        (stale(), "request_recreate", '"observed_generation": 1}'),
        (failed(), "request_start", '{"requested_by": "admin:YOU"}'),
        (stopped(), "request_start", '{"requested_by": "admin:YOU"}'),
        (awaiting(new()), "request_recreate", '"force": true}'),
        (refused(), "request_recreate", '"force": true}'),
        (not_terminated(), "declare_dead", f'"instance_id": "{instance_of(1)}"'),
        (never_observed(), "declare_dead", '"instance_id": "INSTANCE"'),
    ],
    ids=["stale", "failed", "stopped", "awaiting", "refused", "not_terminated", "never_observed"],
)
def test_each_remedy_is_a_command_to_copy(state: State, name: str, expected_input: str) -> None:
    [first, *_] = remedies.remedies(state, after(minutes=12))
    arguments = shlex.split(first.command.replace("\\\n", " "))
    assert arguments[:4] == ["temporal", "workflow", "update", "execute"]
    assert arguments[arguments.index("--workflow-id") + 1] == "ws-1"
    assert arguments[arguments.index("--name") + 1] == name
    assert expected_input in arguments[arguments.index("--input") + 1]
    assert first.command in status.details(state, None, after(minutes=12))


def test_the_suggested_commands_are_accepted() -> None:
    state, request = send_request(
        awaiting(new()), T0, requested_by=remedies.OPERATOR, observed_generation=1, force=True
    )
    assert (request.outcome, state.generation) == ("accepted", 2)
    for stuck in (failed(), stopped()):
        _, request = send_request(stuck, T0, kind=RequestKind.START, requested_by=remedies.OPERATOR)
        assert request.outcome == "accepted"
    _, request = send_request(
        not_terminated(),
        after(minutes=12),
        kind=RequestKind.DECLARE_DEAD,
        requested_by=remedies.OPERATOR,
        instance_id=instance_of(1),
    )
    assert request.outcome == "accepted"


def test_a_healthy_or_deleted_workspace_has_no_remedies() -> None:
    assert remedies.remedies(online(), T0) == ()
    assert remedies.remedies(State(workspace_id="ws-1"), T0) == ()
    state, _ = send_request(stopped(), T0, kind=RequestKind.DELETE, requested_by="admin:alice")
    assert remedies.remedies(state, T0) == ()


def test_the_remedy_names_what_defers_a_recreate_and_uses_force() -> None:
    state = stale()
    spent = tuple(after(minutes=minute) for minute in (1, 2, 3))
    state = replace(state, waiting=Exhausted(), budget=replace(state.budget, automatic=spent))
    state = conditions.refresh(state, after(minutes=6))
    [one] = remedies.remedies(state, after(minutes=6))
    assert "although recreates are deferred (BudgetExhausted)" in one.to
    assert '"force": true' in one.command


def test_untrusted_text_is_escaped() -> None:
    untrusted = "<img src=x onerror=alert(1)> | **bold** _x_ [click](http://evil.example)\n# head"
    state, _ = send_request(online(), T0, requested_by=untrusted, observed_generation=1)
    text = status.details(state, None, T0)
    [row] = [line for line in text.splitlines() if "evil" in line]
    assert row.count(" | ") == 2
    for markup in ("<img", " **bold", " _x", "[click]", "http://evil"):
        assert f" {markup.strip()}" not in row
    assert r"\<img src=x onerror=alert(1)\> \| \*\*bold\*\*" in row


@given(st.text(max_size=700))
def test_no_text_leaves_its_line_or_cell(text: str) -> None:
    for shown in (plain(text), code(text)):
        [_, _, row] = table(("a",), [(shown,)])[1:]
        assert row.splitlines() in ([row], [])
        assert row.replace("\\\\", "").replace("\\|", "").count("|") == 2
    assert "`" not in code(text)[1:-1]
    assert len(plain(text)) <= 2 * 500 + 20


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("never_called: it's 10.0.0.1", "never_called: it's 10.0.0.1"),
        ("_so_", r"\_so\_"),
        ("1. first", r"1\. first"),
        ("- item", r"\- item"),
        ("# head", r"\# head"),
        ("see https://x.example", r"see https\://x.example"),
        ("two\nlines", "two lines"),
        ("", ""),
    ],
)
def test_plain_text_escapes_only_what_markdown_interprets(text: str, shown: str) -> None:
    assert plain(text) == shown


def test_a_table_without_rows_is_none() -> None:
    assert table(("a", "b"), []) == []


CALLS = {
    "execute_activity": "summary",
    "start_activity": "summary",
    "sleep": "summary",
    "wait_condition": "timeout_summary",
}


def test_every_activity_and_timer_has_a_summary() -> None:
    seen = 0
    for path in sorted(Path(workflows.__path__[0]).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
                continue
            owner = node.func.value
            if not isinstance(owner, ast.Name) or owner.id != "workflow" or node.func.attr not in CALLS:
                continue
            given_ = {keyword.arg for keyword in node.keywords}
            if node.func.attr == "wait_condition" and "timeout" not in given_:
                continue  # it starts no timer
            seen += 1
            assert CALLS[node.func.attr] in given_, f"{path.name}:{node.lineno}"
    assert seen >= 5
