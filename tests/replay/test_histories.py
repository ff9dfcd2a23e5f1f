"""Recorded histories replay under the present code, and tell their story."""

import asyncio

import pytest
from temporalio import workflow
from temporalio.worker import Replayer

from tests.replay.record import HISTORIES, PATHS, REQUESTERS
from workers import replay
from workers.timeline import render, timeline
from workflows import messages
from workflows.converter import DATA_CONVERTER


@pytest.mark.parametrize("name", sorted(path.stem for path in HISTORIES.glob("*.json")))
def test_a_recorded_history_is_deterministic_under_this_code(name: str) -> None:
    assert asyncio.run(replay.check(replay.read(HISTORIES / f"{name}.json"))) is None


def test_every_path_is_recorded() -> None:
    assert {path.stem for path in HISTORIES.glob("*.json")} >= set(PATHS)


def test_the_incidents_timeline_names_who_asked_and_what_became_of_each() -> None:
    history = replay.read(HISTORIES / "incident.json")
    story = render(timeline(history.events))
    for requester in REQUESTERS:
        assert story.count(f"recreate by {requester} about generation 1") == 2
    assert [story.count(word) for word in ("ACCEPTED", "JOINED", "STALE")] == [1, 2, 3]
    assert "generation 1 is silent" in story
    assert "launch (generation 2, attempt 1) done" in story
    assert story.index("ACCEPTED") < story.index("launch (generation 2") < story.index("STALE")


@workflow.defn(name=messages.WORKFLOW_TYPE, sandboxed=False)
class Changed:
    """A workflow of the same name that does something else first."""

    @workflow.run
    async def run(self, *payload: object) -> None:
        await workflow.sleep(1)


def test_a_change_of_the_order_of_commands_is_noticed() -> None:
    history = replay.read(HISTORIES / "incident.json")
    replayer = Replayer(workflows=[Changed], data_converter=DATA_CONVERTER)
    result = asyncio.run(replayer.replay_workflow(history, raise_on_replay_failure=False))
    assert result.replay_failure is not None
