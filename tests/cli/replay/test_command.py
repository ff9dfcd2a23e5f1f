"""`onebox replay` on files: chains, `--at`, `--html`, `--json`, and errors."""

import json
import re
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


def events(path: str) -> list[dict[str, Any]]:
    """The events of an exported history."""
    found: list[dict[str, Any]] = json.loads(Path(path).read_text())["events"]
    return found


def test_runs_of_a_chain_are_sorted_by_time(
    chain: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = chain
    command.run([second, first])
    shown = capsys.readouterr()
    numbers = [len(events(path)) for path in sorted(chain, key=lambda path: events(path)[0]["eventTime"])]
    assert f"run 1 of 2: {numbers[0]} events" in shown.out
    assert f"run 2 of 2: {numbers[1]} events" in shown.out
    assert shown.out.index(" #1:1 ") < shown.out.index(" #2:1 ")
    assert f"replaying run 1 of 2, {numbers[0]} events" in shown.err


def test_a_point_of_a_chain_names_its_run(chain: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    assert command.run([*chain, "--at", "13"]) == 2
    assert "there are 2 runs; name an event as RUN:EVENT" in capsys.readouterr().err
    command.run([*chain, "--at", "2:13"])
    shown = re.search(r"after event (\d+) of run 2", capsys.readouterr().out)
    assert shown is not None
    assert 0 < int(shown[1]) <= 13


def test_a_suspended_machine_is_not_reported_as_non_determinism(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    record, stops = replay_run._StateRecorder.record, [2.5]  # the SDK takes two seconds for a deadlock

    def held_up(recorder: replay_run._StateRecorder, *activation: Any) -> None:
        time.sleep(stops.pop() if stops else 0)
        record(recorder, *activation)

    monkeypatch.setattr(replay_run._StateRecorder, "record", held_up)
    assert command.run([INCIDENT]) == 0
    assert stops == []
    assert "deadlock" not in capsys.readouterr().out


def test_files_of_different_workspaces_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.run([INCIDENT, str(HISTORIES / "troubled.json")]) == 2
    assert "belong to different workflows: incident, troubled" in capsys.readouterr().err


def test_the_whole_state_at_a_point_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    last = events(INCIDENT)[-1]["eventId"]
    assert command.run([INCIDENT, "--at", last]) == 0
    shown = capsys.readouterr().out
    assert re.search(r"after event \d+ of run 1, at \S+ \S+ UTC: online, generation 2", shown)
    assert json.loads(shown[shown.index("\n{") :])["generation"] == 2


def test_json_is_one_value(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.run([INCIDENT, "--json"]) == 0
    value = json.loads(capsys.readouterr().out)
    assert value["deterministic"] is True
    assert value["most_boxes_alive_at_once"] == 1
    assert [request["outcome"] for request in value["requests"]] == [
        "accepted",
        "joined",
        "joined",
        *3 * ["stale"],
    ]
    assert value["timeline"][0]["seconds"] == 0


def test_the_page_is_written_to_the_given_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "night.html"
    assert command.run([INCIDENT, "--html", str(page)]) == 0
    assert page.read_text().startswith("<!doctype html>")
    assert "deterministic under this code" in capsys.readouterr().out
    assert command.run([INCIDENT, "--html", str(tmp_path / "no" / "night.html")]) == 2
    assert "cannot be written" in capsys.readouterr().err


def test_a_difference_is_shown_with_its_event_and_the_timeline(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    changed = tmp_path / "changed.json"
    changed.write_text(Path(INCIDENT).read_text().replace('"fence-2"', '"fence-two"'))
    assert command.run([str(changed)]) == 1
    shown = capsys.readouterr().out
    [event] = [
        it["eventId"]
        for it in events(str(changed))
        if it.get("activityTaskScheduledEventAttributes", {}).get("activityId") == "fence-two"
    ]
    assert (
        f"NOT DETERMINISTIC: event {event}: the history has activity fence_instances (fence-two), "
        "this code issues activity fence_instances (fence-2)"
    ) in shown
    # The timeline after the difference comes from the records in the history.
    assert "2 boxes, never more than one at once" in shown
    assert "online, generation 2" in shown


def test_an_unavailable_database_is_no_failure(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://nobody@127.0.0.1:1/none")
    assert command.run([INCIDENT]) == 0
    assert "The database is unavailable" in capsys.readouterr().out
