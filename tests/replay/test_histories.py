"""Recorded histories replay under the present code, inside Temporal's sandbox too, and tell who asked."""

import asyncio

import pytest
from temporalio.worker import Interceptor, Replayer

from cli.replay import command
from cli.replay.histories import read
from cli.replay.timeline.build import build_timeline
from cli.replay.timeline.render_text import render
from tests.replay.record import HISTORIES, PATHS, REQUESTERS
from workers.history.replay_run import WORKFLOWS
from workers.telemetry.interceptors import ObservabilityInterceptor
from workflows.shared.data_converter import DATA_CONVERTER

NAMES = sorted(path.stem for path in HISTORIES.glob("*.json"))

HELD_UP = "[TMPRL1101]"
"""What the SDK says of a workflow task of more than two seconds: a deadlock, or only a busy machine."""

TIMES = 10
"""So often in a row, it is a deadlock."""


def failure(name: str, *interceptors: Interceptor) -> str | None:
    """Why a history isn't deterministic in the sandbox; what was held up is replayed anew."""
    history = read(HISTORIES / f"{name}.json")
    said: str | None = None
    for _ in range(TIMES):
        replayer = Replayer(workflows=WORKFLOWS, data_converter=DATA_CONVERTER, interceptors=interceptors)
        result = asyncio.run(replayer.replay_workflow(history, raise_on_replay_failure=False))
        said = None if result.replay_failure is None else str(result.replay_failure)
        if said is None or HELD_UP not in said:
            break
    return said


@pytest.mark.parametrize("name", NAMES)
def test_a_recorded_history_is_deterministic_under_this_code(name: str) -> None:
    assert asyncio.run(command.check(read(HISTORIES / f"{name}.json"))) is None


@pytest.mark.parametrize("name", NAMES)
def test_a_recorded_history_is_deterministic_in_the_sandbox(name: str) -> None:
    assert failure(name) is None


@pytest.mark.parametrize("name", NAMES)
def test_a_recorded_history_is_deterministic_with_what_observes_it_in_a_worker(name: str) -> None:
    assert failure(name, ObservabilityInterceptor()) is None


def test_every_path_is_recorded() -> None:
    assert set(NAMES) >= set(PATHS)


def test_the_incidents_timeline_names_who_asked_and_what_became_of_each() -> None:
    story = render(build_timeline([read(HISTORIES / "incident.json").events]))
    for requester in REQUESTERS:
        assert story.count(f"{requester} requested recreate of generation 1") == 2
    timeline = story.partition("(UTC;")[2]
    assert [timeline.count(word) for word in ("ACCEPTED", "JOINED", "STALE")] == [1, 2, 3]
    assert "generation 1 is stale" in timeline
    assert "launch (generation 2, attempt 1) done" in timeline
    assert timeline.index("ACCEPTED") < timeline.index("launch (generation 2") < timeline.index("STALE")
