"""How the lifecycle handles orphan instances that the sweep found."""

import pytest

from tests.workflows.workspace.scenarios import (
    after,
    awaiting,
    due,
    instance_of,
    new,
    online,
    send_request,
    step_done,
)
from workflows.workspace import lifecycle
from workflows.workspace.conditions import phase
from workflows.workspace.contract import LaunchResult, OrphansTerminated
from workflows.workspace.enums import BoxEventKind, Phase, Step
from workflows.workspace.events import BoxChanged, StepFailed
from workflows.workspace.requests import OutcomeKind, RequestKind
from workflows.workspace.state import State

ORPHAN = "i-0000000000000abcd"


def swept(
    state: State, kind: BoxEventKind = BoxEventKind.ORPHAN, *, generation: int = 1, instance_id: str = ORPHAN
) -> State:
    event = BoxChanged(kind=kind, generation=generation, at=after(900), detail=instance_id)
    return lifecycle.apply(state, event, after(900))


def halted() -> State:
    """A launch whose response was lost, and whose retry has failed for good."""
    state = new()
    while due(state, after()) is not Step.LAUNCH:
        state = step_done(state, after())
    refusal = StepFailed(step=Step.LAUNCH, code="AuthFailure", message="no", hint="fix it", retryable=False)
    return lifecycle.apply(state, refusal, after())


@pytest.mark.parametrize("generation", [0, 1, 2])
def test_an_orphan_of_any_generation_is_terminated_and_the_box_stays_online(generation: int) -> None:
    state = swept(online(generation=2), generation=generation)
    assert due(state, after(900)) is Step.EVICT
    assert phase(state) is Phase.ONLINE
    state = lifecycle.apply(state, OrphansTerminated(instances=(ORPHAN,), terminated=(ORPHAN,)), after(901))
    assert due(state, after(901)) is None
    assert phase(state) is Phase.ONLINE


def test_the_current_box_is_no_orphan() -> None:
    state = online()
    assert swept(state, instance_id=instance_of(1)).orphan_instances == ()


def test_an_orphan_found_while_others_are_terminated_is_not_forgotten() -> None:
    state = swept(swept(online()), instance_id="i-0000000000000ffff")
    state = lifecycle.apply(state, OrphansTerminated(instances=(ORPHAN,)), after(901))
    assert state.orphan_instances == ("i-0000000000000ffff",)
    assert due(state, after(901)) is Step.EVICT


def test_an_orphan_waits_for_the_steps_of_a_recreate() -> None:
    state, request = send_request(online(), after(800), requested_by="admin:alice", observed_generation=1)
    assert request.outcome is OutcomeKind.ACCEPTED
    state = swept(state)
    assert due(state, after(900)) is Step.OPEN
    for _ in range(4):
        state = step_done(state, after(900))
    assert due(state, after(900)) is Step.EVICT


def test_an_orphan_of_a_stopped_workspace_is_terminated_and_it_stays_stopped() -> None:
    state, _ = send_request(online(), after(800), kind=RequestKind.STOP, requested_by="admin:alice")
    state = swept(awaiting(state, after(800)))
    assert due(state, after(900)) is Step.EVICT
    state = lifecycle.apply(state, OrphansTerminated(instances=(ORPHAN,), terminated=(ORPHAN,)), after(901))
    assert due(state, after(901)) is None
    assert phase(state) is Phase.STOPPED


def test_an_orphan_does_not_delay_a_deletion() -> None:
    state, _ = send_request(online(), after(800), kind=RequestKind.DELETE, requested_by="admin:alice")
    state = awaiting(swept(state), after(900))
    assert phase(state) is Phase.DELETED


def test_the_number_of_remembered_orphans_is_limited() -> None:
    state = online()
    for number in range(1_000):
        state = swept(state, instance_id=f"i-{number + 16:017x}")
    assert 0 < len(state.orphan_instances) < 100


def test_an_unrecorded_instance_is_adopted_by_another_launch() -> None:
    state = halted()
    assert phase(state) is Phase.FAILED
    assert due(state, after(900)) is None
    state = swept(state, BoxEventKind.UNRECORDED_INSTANCE)
    assert due(state, after(900)) is Step.LAUNCH
    adopted = LaunchResult(instance_id=ORPHAN, private_ip="10.0.0.1", adopted=True)
    state = lifecycle.apply(state, adopted, after(901))
    assert due(state, after(901)) is Step.ADDRESS
    assert state.box.instance_id == ORPHAN


def test_an_unrecorded_instance_ends_the_wait_for_the_next_retry() -> None:
    state = new()
    while due(state, after()) is not Step.LAUNCH:
        state = step_done(state, after())
    failure = StepFailed(step=Step.LAUNCH, code="X", message="no", hint="wait", retryable=True)
    for _ in range(9):
        state = lifecycle.apply(state, failure, after(890))
    assert due(state, after(900)) is None
    assert due(swept(state, BoxEventKind.UNRECORDED_INSTANCE), after(900)) is Step.LAUNCH


def test_an_unrecorded_instance_that_was_adopted_changes_nothing() -> None:
    state = online()
    assert swept(state, BoxEventKind.UNRECORDED_INSTANCE) == state


def test_an_unrecorded_instance_of_a_stopped_workspace_starts_nothing() -> None:
    state, _ = send_request(halted(), after(800), kind=RequestKind.STOP, requested_by="admin:alice")
    state = awaiting(state, after(800))
    state = swept(state, BoxEventKind.UNRECORDED_INSTANCE)
    assert phase(state) is Phase.STOPPED
    assert due(state, after(900)) is None
