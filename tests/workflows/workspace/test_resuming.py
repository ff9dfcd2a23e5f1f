"""A workflow that starts again, and one whose record is ahead, go on from where things stand."""

from dataclasses import replace

from tests.workflows.workspace.scenarios import (
    NO_CANARY,
    T0,
    after,
    asked,
    awaiting_address,
    enrolled,
    heard,
    online,
    step_done,
)
from workflows.workspace import lifecycle
from workflows.workspace.conditions import phase
from workflows.workspace.events import BoxEventKind, GenerationOpened
from workflows.workspace.requests import RequestKind
from workflows.workspace.state import Intent, Phase, State, Step


def test_a_generation_that_was_decided_on_survives_reading_the_record_again() -> None:
    state, _ = asked(online(), T0, observed_generation=1)
    state = lifecycle.apply(state, lifecycle.StateBehindRecord(), T0)
    state = lifecycle.apply(state, enrolled(generation=1), after(1))
    assert (state.generation, lifecycle.due(state, after(1))) == (2, Step.OPEN)


def test_a_fence_for_a_recreate_does_not_count_for_a_stop_that_came_meanwhile() -> None:
    begun = lifecycle.apply(State(workspace_id="ws-1"), enrolled(generation=7), T0)
    assert lifecycle.due(begun, T0) is Step.FENCE  # it spares the box of generation 7
    stopped, _ = asked(begun, T0, kind=RequestKind.STOP)
    assert not lifecycle.result_still_applies(Step.FENCE, begun, stopped)
    assert lifecycle.result_still_applies(Step.FENCE, begun, heard(begun, BoxEventKind.REGISTERED, T0))


def test_a_closing_for_a_stop_does_not_count_for_a_deletion_that_came_meanwhile() -> None:
    stopped, _ = asked(online(), T0, kind=RequestKind.STOP)
    deleted, _ = asked(stopped, T0, kind=RequestKind.DELETE)
    assert lifecycle.due(deleted, T0) is Step.CLOSE
    assert not lifecycle.result_still_applies(Step.CLOSE, stopped, deleted)


def test_a_step_of_a_generation_that_was_given_up_does_not_count() -> None:
    begun = awaiting_address()
    given_up = replace(begun, generation=2)
    assert not lifecycle.result_still_applies(Step.ADDRESS, begun, given_up)
    assert lifecycle.result_still_applies(Step.ENROLL, begun, given_up)


def test_a_workflow_that_starts_again_resumes_the_recorded_generation() -> None:
    known = replace(enrolled(generation=7), registered_at=T0, heartbeat_at=T0, attempt=3)
    state = lifecycle.apply(State(workspace_id="ws-1"), known, T0)
    assert (state.generation, state.box.attempt) == (7, 3)
    steps = []
    while (step := lifecycle.due(state, T0)) is not None:
        steps.append(step)
        state = step_done(state, T0)
    assert steps == [Step.FENCE, Step.LAUNCH, Step.ADDRESS]  # no new generation
    assert phase(state) is Phase.ONLINE


def test_a_workflow_that_starts_again_leaves_a_stopped_workspace_stopped() -> None:
    state = lifecycle.apply(State(workspace_id="ws-1"), enrolled(generation=3, intent=Intent.STOP), T0)
    assert lifecycle.due(state, T0) is Step.FENCE
    assert phase(step_done(state, T0)) is Phase.STOPPED


def test_a_deleted_workspace_cannot_be_started_again() -> None:
    state = lifecycle.apply(
        State(workspace_id="ws-1"), enrolled(generation=3, intent=Intent.DELETE, deleted=True), T0
    )
    assert phase(state) is Phase.DELETED
    assert lifecycle.due(state, T0) is None


def test_the_database_has_the_last_word_on_the_generation() -> None:
    state, _ = asked(online(), T0, observed_generation=1)
    state = lifecycle.apply(state, GenerationOpened(generation=5, timings=NO_CANARY), T0)
    assert state.generation == 5
    assert state.provisioning is not None
    assert state.provisioning.generation == 5


def test_a_record_that_is_ahead_is_read_again_and_an_accepted_stop_survives_it() -> None:
    state, _ = asked(online(), T0, kind=RequestKind.STOP)
    state = lifecycle.apply(state, lifecycle.StateBehindRecord(), T0)
    assert lifecycle.due(state, T0) is None  # a record that stays ahead must not make a storm
    assert lifecycle.due(state, after(1)) is Step.ENROLL
    state = lifecycle.apply(state, enrolled(generation=4), T0)
    assert (state.generation, state.intent) == (4, Intent.STOP)
    assert lifecycle.due(state, T0) is Step.CLOSE
