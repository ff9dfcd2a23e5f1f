"""What people see of a workspace: what it is, does, waits for and why; the text of strangers stays text."""

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
    asked,
    awaiting,
    heard,
    instance_of,
    new,
    online,
    step_done,
)
from workflows.shared.markdown import code, plain, table
from workflows.workspace import conditions, lifecycle, messages, remedies, status
from workflows.workspace.events import BoxEventKind, FenceObserved, StepFailed
from workflows.workspace.requests import RequestKind
from workflows.workspace.state import Phase, State, Step

REFUSED = StepFailed(
    step=Step.LAUNCH,
    code="UnauthorizedOperation",
    message="RunInstances: not *yours* | <b>really</b>",
    hint="Mend the role.",
    retryable=False,
)


def silent() -> State:
    return heard(online(), BoxEventKind.STALE, after(minutes=5))


def failed() -> State:
    state = new()
    while lifecycle.due(state, T0) is not Step.LAUNCH:
        state = step_done(state, T0)
    return lifecycle.apply(state, REFUSED, T0)


def undead() -> State:
    """Its old box was seen alive for longer than a termination takes."""
    state, _ = asked(online(), T0, requested_by="admin:alice", observed_generation=1)
    state = step_done(state, T0)
    alive = FenceObserved(terminated=(), alive=(instance_of(1),), missing=())
    return lifecycle.apply(lifecycle.apply(state, alive, T0), alive, after(minutes=11))


def never_looked() -> State:
    """EC2 answers nothing, so that nobody knows what has to be gone."""
    state, _ = asked(online(), T0, requested_by="admin:alice", observed_generation=1)
    refused = replace(REFUSED, step=Step.FENCE, retryable=True)
    state = lifecycle.apply(step_done(state, T0), refused, T0)
    return lifecycle.apply(state, refused, after(minutes=11))


def stopped() -> State:
    state, _ = asked(online(), T0, kind=RequestKind.STOP, requested_by="admin:alice")
    while lifecycle.due(state, T0) is not None:
        state = step_done(state, T0)
    return state


def reason(state: State) -> str | None:
    found = conditions.blocking_condition(state)
    return None if found is None else found.reason


@pytest.mark.parametrize(
    ("state", "phase", "expected"),
    [
        (online(), Phase.ONLINE, None),
        (silent(), Phase.DEGRADED, "Silent"),
        (failed(), Phase.FAILED, "NotLaunched"),
        (undead(), Phase.RECREATING, "FenceUnconfirmed"),
        (never_looked(), Phase.RECREATING, "FenceUnconfirmed"),
        (awaiting(new()), Phase.AWAITING_REGISTRATION, None),
        (stopped(), Phase.STOPPED, None),
    ],
    ids=lambda it: str(it) if isinstance(it, Phase) else "",
)
def test_the_reason_is_that_of_the_condition_which_keeps_it_from_online(
    state: State, phase: Phase, expected: str | None
) -> None:
    assert (conditions.phase(state), reason(state)) == (phase, expected)
    *_, shown = status.search_attributes(state)
    assert (shown.key, shown.value) == (messages.REASON, expected)


def test_the_first_proof_that_is_missing_is_the_reason() -> None:
    state = heard(silent(), BoxEventKind.CREDENTIAL_LOST, after(minutes=6))
    assert {it.reason for it in state.conditions} >= {"CredentialLost", "Silent"}
    assert reason(state) == "CredentialLost"


def test_the_memo_says_it_in_words_and_has_nothing_to_say_of_what_is_well() -> None:
    assert status.memo(online()) == {"dns_name": "ws-1.boxes.internal", "why": None, "last_error": None}
    assert status.memo(silent())["why"] == "no beat since 22:24:00 UTC"
    assert status.memo(failed())["last_error"] == f"UnauthorizedOperation: {REFUSED.message}"


def test_at_a_glance_what_it_is_does_waits_for_and_why() -> None:
    text = status.details(silent(), None, after(minutes=6))
    for line in (
        f"**degraded** — generation 1, instance `{instance_of(1)}`, address 10.0.0.1, `ws-1.boxes.internal`",
        "**Now:** its box to be well again, or a request; the watchdog asks for another box by and by.",
        "**Why:** no beat since 22:24:00 UTC (`Silent`, since 2026-06-11 22:24:00 UTC).",
        "| `HeartbeatFresh` | **false** | `06-11 22:24:00` | no beat since 22:24:00 UTC |",
    ):
        assert line in text, text


def test_the_last_error_stands_there_with_what_to_do_about_it() -> None:
    text = status.details(failed(), None, T0)
    assert "**Last error:** `UnauthorizedOperation` in *launch* of generation 1: " in text
    assert "Once, at 2026-06-11 22:19:00 UTC; not tried again by itself. Mend the role." in text
    assert "**Now:** a human: request_start takes it up again." in text


@pytest.mark.parametrize(
    ("state", "name", "says"),
    [
        (silent(), "request_recreate", '"observed_generation": 1}'),
        (failed(), "request_start", '{"requested_by": "admin:YOU"}'),
        (stopped(), "request_start", '{"requested_by": "admin:YOU"}'),
        (awaiting(new()), "request_recreate", '"force": true}'),
        (undead(), "declare_dead", f'"instance_id": "{instance_of(1)}"'),
        (never_looked(), "declare_dead", '"instance_id": "INSTANCE"'),
    ],
    ids=["silent", "failed", "stopped", "awaiting", "undead", "never_looked"],
)
def test_what_one_can_do_is_a_command_that_can_be_copied(state: State, name: str, says: str) -> None:
    [first, *_] = remedies.remedies(state, after(minutes=12))
    words = shlex.split(first.command.replace("\\\n", " "))
    assert words[:4] == ["temporal", "workflow", "update", "execute"]
    assert words[words.index("--workflow-id") + 1] == "ws-1"
    assert words[words.index("--name") + 1] == name
    assert says in words[words.index("--input") + 1]
    assert first.command in status.details(state, None, after(minutes=12))


def test_what_is_advised_is_accepted() -> None:
    state, request = asked(awaiting(new()), T0, requested_by=remedies.WHO, observed_generation=1, force=True)
    assert (request.outcome, state.generation) == ("accepted", 2)
    for stuck in (failed(), stopped()):
        _, request = asked(stuck, T0, kind=RequestKind.START, requested_by=remedies.WHO)
        assert request.outcome == "accepted"
    _, request = asked(
        undead(),
        after(minutes=12),
        kind=RequestKind.DECLARE_DEAD,
        requested_by=remedies.WHO,
        instance_id=instance_of(1),
    )
    assert request.outcome == "accepted"


def test_a_workspace_that_is_well_or_gone_needs_no_advice() -> None:
    assert remedies.remedies(online(), T0) == ()
    assert remedies.remedies(State(workspace_id="ws-1"), T0) == ()
    state, _ = asked(stopped(), T0, kind=RequestKind.DELETE, requested_by="admin:alice")
    assert remedies.remedies(state, T0) == ()


def test_what_holds_a_recreate_back_is_said_beside_the_force_that_passes_it() -> None:
    state = silent()
    spent = tuple(after(minutes=minute) for minute in (1, 2, 3))
    state = replace(state, budget=replace(state.budget, automatic=spent, exhausted=True))
    state = conditions.refresh(state, after(minutes=6))
    [one] = remedies.remedies(state, after(minutes=6))
    assert "although it is held back (BudgetSpent)" in one.to
    assert '"force": true' in one.command


def test_text_of_strangers_stays_text() -> None:
    evil = "<img src=x onerror=alert(1)> | **bold** _x_ [click](http://evil.example)\n# head"
    state, _ = asked(online(), T0, requested_by=evil, observed_generation=1)
    text = status.details(state, None, T0)
    [row] = [line for line in text.splitlines() if "evil" in line]
    assert row.count(" | ") == 2
    for markup in ("<img", " **bold", " _x", "[click]", "http://evil"):
        assert f" {markup.strip()}" not in row
    assert r"\<img src=x onerror=alert(1)\> \| \*\*bold\*\*" in row


@given(st.text(max_size=700))
def test_no_text_leaves_its_line_or_its_cell(text: str) -> None:
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
def test_plain_text_escapes_what_markdown_would_take_up_and_no_more(text: str, shown: str) -> None:
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
