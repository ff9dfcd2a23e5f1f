"""A workflow that starts again, or whose state is behind PostgreSQL, continues from the record."""

from dataclasses import replace

from tests.workflows.workspace.scenarios import (
    NO_CANARY,
    T0,
    after,
    awaiting_address,
    box_event,
    due,
    enrolled,
    online,
    send_request,
    step_done,
)
from workflows.workspace import lifecycle
from workflows.workspace.conditions import phase
from workflows.workspace.contract import GenerationOpened
from workflows.workspace.enums import BoxEventKind, Intent, Phase, Step
from workflows.workspace.events import StateBehindRecord
from workflows.workspace.phases.address import ADDRESS
from workflows.workspace.phases.close import CLOSE
from workflows.workspace.phases.enroll import ENROLL
from workflows.workspace.phases.fence import FENCE
from workflows.workspace.requests import RequestKind
from workflows.workspace.state import State


def test_an_accepted_generation_survives_reading_the_record_again() -> None:
    state, _ = send_request(online(), T0, observed_generation=1)
    state = lifecycle.apply(state, StateBehindRecord(), T0)
    state = lifecycle.apply(state, enrolled(generation=1), after(1))
    assert (state.generation, due(state, after(1))) == (2, Step.OPEN)


def test_a_fence_for_a_recreate_does_not_count_for_a_later_stop() -> None:
    before = lifecycle.apply(State(workspace_id="ws-1"), enrolled(generation=7), T0)
    assert due(before, T0) is Step.FENCE  # it keeps the box of generation 7
    stopped, _ = send_request(before, T0, kind=RequestKind.STOP)
    assert not lifecycle.result_still_applies(FENCE, before, stopped)
    assert lifecycle.result_still_applies(FENCE, before, box_event(before, BoxEventKind.REGISTERED, T0))


def test_a_close_for_a_stop_does_not_count_for_a_later_deletion() -> None:
    stopped, _ = send_request(online(), T0, kind=RequestKind.STOP)
    deleted, _ = send_request(stopped, T0, kind=RequestKind.DELETE)
    assert due(deleted, T0) is Step.CLOSE
    assert not lifecycle.result_still_applies(CLOSE, stopped, deleted)


def test_a_step_of_a_replaced_generation_does_not_count() -> None:
    before = awaiting_address()
    replaced = replace(before, generation=2)
    assert not lifecycle.result_still_applies(ADDRESS, before, replaced)
    assert lifecycle.result_still_applies(ENROLL, before, replaced)


def test_a_workflow_that_starts_again_resumes_the_recorded_generation() -> None:
    known = replace(enrolled(generation=7), registered_at=T0, heartbeat_at=T0, attempt=3)
    state = lifecycle.apply(State(workspace_id="ws-1"), known, T0)
    assert (state.generation, state.box.attempt) == (7, 3)
    steps = []
    while (step := due(state, T0)) is not None:
        steps.append(step)
        state = step_done(state, T0)
    assert steps == [Step.FENCE, Step.LAUNCH, Step.ADDRESS]  # no new generation
    assert phase(state) is Phase.ONLINE


def test_a_workflow_that_starts_again_leaves_a_stopped_workspace_stopped() -> None:
    state = lifecycle.apply(State(workspace_id="ws-1"), enrolled(generation=3, intent=Intent.STOP), T0)
    assert due(state, T0) is Step.FENCE
    assert phase(step_done(state, T0)) is Phase.STOPPED


def test_a_deleted_workspace_cannot_be_started_again() -> None:
    state = lifecycle.apply(
        State(workspace_id="ws-1"), enrolled(generation=3, intent=Intent.DELETE, deleted=True), T0
    )
    assert phase(state) is Phase.DELETED
    assert due(state, T0) is None


def test_postgresql_decides_the_generation() -> None:
    state, _ = send_request(online(), T0, observed_generation=1)
    state = lifecycle.apply(state, GenerationOpened(generation=5, timings=NO_CANARY), T0)
    assert state.generation == 5
    assert state.provisioning is not None
    assert state.provisioning.generation == 5


def test_a_record_that_is_ahead_is_read_again_and_an_accepted_stop_survives_it() -> None:
    state, _ = send_request(online(), T0, kind=RequestKind.STOP)
    state = lifecycle.apply(state, StateBehindRecord(), T0)
    assert due(state, T0) is None  # a record that stays ahead must not cause a loop
    assert due(state, after(1)) is Step.ENROLL
    state = lifecycle.apply(state, enrolled(generation=4), T0)
    assert (state.generation, state.intent) == (4, Intent.STOP)
    assert due(state, T0) is Step.CLOSE
