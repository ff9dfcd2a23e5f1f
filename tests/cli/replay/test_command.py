"""`onebox replay` on files: chains, points, pages, machines, and what it says of what it can't tell."""

import json
import time
from pathlib import Path
from typing import Any

import pytest

from cli.replay import command
from tests.replay.record import HISTORIES
from workers.history import replay_run

INCIDENT = str(HISTORIES / "incident.json")


@pytest.fixture(autouse=True)
def _no_database(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DATABASE_URL", raising=False)


@pytest.fixture
def chain(tmp_path: Path) -> tuple[str, str]:
    """Two runs of one workspace: the recorded end of a chain, and another history as the run before."""
    before = json.loads((HISTORIES / "incident.json").read_text())
    before["events"][0]["workflowExecutionStartedEventAttributes"]["workflowId"] = "continued"
    first, second = tmp_path / "b.json", HISTORIES / "continued.json"
    first.write_text(json.dumps(before))
    return str(first), str(second)


def test_runs_of_a_chain_are_told_in_the_order_of_time_whatever_the_files_order(
    chain: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = chain
    command.run([second, first])
    shown = capsys.readouterr()
    assert "run 1 of 2: 162 events" in shown.out
    assert "run 2 of 2: 62 events" in shown.out
    assert "#1:81 " in shown.out
    assert shown.out.index("#1:81 ") < shown.out.index("continues in a new run")
    assert "replaying run 1 of 2, 162 events" in shown.err


def test_a_point_of_a_chain_names_its_run(chain: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    assert command.run([*chain, "--at", "13"]) == 2
    assert "there are 2 runs; name one of their events as RUN:EVENT" in capsys.readouterr().err
    command.run([*chain, "--at", "2:13"])
    assert "after event 13 of run 2" in capsys.readouterr().out


def test_a_machine_that_stands_still_meanwhile_is_not_told_as_a_break_of_determinism(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    note, stops = replay_run._StateRecorder.note, [2.5]  # the SDK takes two seconds for a deadlock

    def held_up(looker: replay_run._StateRecorder, *activation: Any) -> None:
        time.sleep(stops.pop() if stops else 0)
        note(looker, *activation)

    monkeypatch.setattr(replay_run._StateRecorder, "note", held_up)
    assert command.run([INCIDENT]) == 0
    assert stops == []
    assert "deadlock" not in capsys.readouterr().out


def test_files_of_different_workspaces_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.run([INCIDENT, str(HISTORIES / "troubled.json")]) == 2
    assert "different workflows: incident, troubled" in capsys.readouterr().err


def test_the_whole_state_at_a_point_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.run([INCIDENT, "--at", "01:47:52"]) == 0
    shown = capsys.readouterr().out
    assert "after event 108 of run 1, at 2026-11-24 01:47:51.988 UTC: recreating, generation 2" in shown
    assert json.loads(shown[shown.index("\n{") :])["generation"] == 2


def test_a_machine_gets_one_json_value(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.run([INCIDENT, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["deterministic"] is True
    assert told["most_boxes_alive_at_once"] == 1
    assert [request["outcome"] for request in told["requests"]] == [
        "accepted",
        "joined",
        "joined",
        *3 * ["stale"],
    ]
    assert told["timeline"][0]["seconds"] == 0


def test_the_page_is_written_where_it_was_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "night.html"
    assert command.run([INCIDENT, "--html", str(page)]) == 0
    assert page.read_text().startswith("<!doctype html>")
    assert "deterministic under this code" in capsys.readouterr().out
    assert command.run([INCIDENT, "--html", str(tmp_path / "no" / "night.html")]) == 2
    assert "cannot be written" in capsys.readouterr().err


def test_a_history_of_other_code_is_told_all_the_same_and_the_event_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    changed = tmp_path / "changed.json"
    changed.write_text((HISTORIES / "incident.json").read_text().replace('"fence-2"', '"fence-two"'))
    assert command.run([str(changed)]) == 1
    shown = capsys.readouterr().out
    assert (
        "NOT DETERMINISTIC: event 104: the history has activity fence_instances (fence-two), "
        "this code issues activity fence_instances (fence-2)"
    ) in shown
    # What comes after the difference is told from what was recorded.
    assert "2 boxes, never more than one at once" in shown
    assert "online, generation 2" in shown


def test_an_unreachable_database_is_said_and_is_no_failure(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://nobody@127.0.0.1:1/none")
    assert command.run([INCIDENT]) == 0
    assert "The database cannot be asked" in capsys.readouterr().out
