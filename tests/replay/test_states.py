"""What an earlier release carried over is understood by this one, and nothing of it is lost."""

import asyncio
import json

import pytest

from cli.replay.histories import read
from tests.replay.record import HISTORIES
from tests.replay.states import STATE, STATES
from workers.history.replay_run import replay_run
from workflows.workspace import conditions, lifecycle
from workflows.workspace.events import Tick
from workflows.workspace.state import Settled, State

NAMES = sorted(path.name for path in STATES.glob("*.json"))


@pytest.mark.parametrize("name", NAMES)
def test_a_state_of_an_earlier_release_loads_and_keeps_all_that_it_says(name: str) -> None:
    carried = json.loads((STATES / name).read_text())
    state = STATE.validate_python(carried)
    assert _contains(STATE.dump_python(state, mode="json"), carried)


@pytest.mark.parametrize("name", NAMES)
def test_a_state_of_an_earlier_release_can_be_lived_on_with(name: str) -> None:
    state = STATE.validate_python(json.loads((STATES / name).read_text()))
    at = max((it.last_transition_at for it in state.conditions), default=None)
    if at is not None:
        assert isinstance(lifecycle.apply(state, Tick(), at), State)
    assert conditions.phase(state)


def test_a_state_without_a_member_that_is_newer_than_it_loads() -> None:
    carried = json.loads((STATES / NAMES[0]).read_text())
    for member in ("waiting", "superseded_caller", "frozen"):
        del carried[member]
    assert STATE.validate_python(carried).waiting == Settled()


@pytest.mark.parametrize("name", sorted(path.stem for path in HISTORIES.glob("*.json")))
def test_every_state_of_every_history_survives_being_carried_over(name: str) -> None:
    for moment in asyncio.run(replay_run(read(HISTORIES / f"{name}.json"))).snapshots:
        carried = json.loads(json.dumps(STATE.dump_python(moment.state, mode="json")))
        assert STATE.validate_python(carried) == moment.state


def _contains(whole: object, part: object) -> bool:
    """Whether all of the part is in the whole; members that are newer don't count."""
    if isinstance(part, dict):
        return isinstance(whole, dict) and all(_contains(whole.get(key), part[key]) for key in part)
    if isinstance(part, list):
        pairs = zip(whole, part, strict=True) if isinstance(whole, list) else ()
        return isinstance(whole, list) and all(_contains(mine, theirs) for mine, theirs in pairs)
    return whole == part
