"""A change of what workflow code issues is caught, by replay and by the fingerprint, and named."""

import asyncio

import pytest

from cli.replay import command as replay_command
from cli.replay.histories import read
from tests.replay.changed import LaunchesFirst
from tests.replay.fingerprints import INSTRUCTIONS, difference, fingerprint, recorded
from tests.replay.record import HISTORIES
from workers.history.command_diff import recorded_tasks
from workers.history.replay_run import replay_run

NAMES = sorted(path.stem for path in HISTORIES.glob("*.json"))


@pytest.mark.parametrize("name", NAMES)
def test_the_code_issues_the_commands_that_it_issued_before(name: str) -> None:
    was = recorded().get(name)
    assert was is not None, f"{name} has no fingerprint yet: python -m tests.replay.fingerprints"
    changed = difference(was, fingerprint(name))
    assert changed is None, f"{name}: {changed}\n{INSTRUCTIONS}"


@pytest.mark.parametrize("name", NAMES)
def test_what_is_issued_in_a_replay_is_what_was_recorded(name: str) -> None:
    history = read(HISTORIES / f"{name}.json")
    recalled = asyncio.run(replay_run(history))
    assert recalled.difference is None
    issued = {task.started: task.commands for task in recalled.tasks}
    tasks = recorded_tasks(history.events)
    assert [issued[task.started] for task in tasks] == [task.commands for task in tasks]


def test_a_change_of_the_order_of_steps_is_caught_by_replay_which_names_event_and_commands() -> None:
    history = read(HISTORIES / "incident.json")
    said = asyncio.run(replay_command.check(history, workflows=[LaunchesFirst]))
    assert said is not None
    event = next(
        event.event_id
        for event in history.events
        if event.activity_task_scheduled_event_attributes.activity_type.name == "fence_instances"
    )
    assert said.startswith(
        f"event {event}: the history has activity fence_instances (fence-1), "
        "this code issues activity launch (launch-1)"
    )
    assert "Nondeterminism" in said


def test_a_change_of_the_order_of_steps_is_caught_by_the_fingerprint_which_names_it() -> None:
    recalled = asyncio.run(replay_run(read(HISTORIES / "incident.json"), workflows=[LaunchesFirst]))
    now = [f"{task.started} {command}" for task in recalled.tasks for command in task.commands]
    was = recorded()["incident"]
    fence = next(command for command in was if "fence_instances (fence-1)" in command)
    launch = fence.replace("fence_instances (fence-1)", "launch (launch-1)")
    said = difference(was, now)
    assert said is not None
    assert f"expected {fence!r}, got {launch!r}" in said


def test_the_instructions_say_how_to_continue() -> None:
    for word in ("workflow.patched", "tests/replay/record.py", "python -m tests.replay.fingerprints"):
        assert word in INSTRUCTIONS
