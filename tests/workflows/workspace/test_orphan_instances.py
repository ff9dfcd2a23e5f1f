"""What the lifecycle makes of instances that the sweep saw and nobody claims."""

from dataclasses import replace

import pytest

from tests.workflows.workspace.scenarios import after, asked, awaiting, instance_of, new, online, step_done
from workflows.workspace import lifecycle
from workflows.workspace.conditions import phase
from workflows.workspace.events import BoxChanged, BoxEventKind, LaunchResult, OrphansTerminated, StepFailed
from workflows.workspace.requests import OutcomeKind, RequestKind
from workflows.workspace.state import Phase, State, Step

ORPHAN = "i-0000000000000abcd"


def swept(
    state: State, kind: BoxEventKind = BoxEventKind.ORPHAN, *, generation: int = 1, instance_id: str = ORPHAN
) -> State:
    fact = BoxChanged(kind=kind, generation=generation, at=after(900), detail=instance_id)
    return lifecycle.apply(state, fact, after(900))


def halted() -> State:
    """A launch whose answer was lost, and whose next tries were refused for good."""
    state = new()
    while lifecycle.due(state, after()) is not Step.LAUNCH:
        state = step_done(state, after())
    refusal = StepFailed(step=Step.LAUNCH, code="AuthFailure", message="no", hint="mend it", retryable=False)
    return lifecycle.apply(state, refusal, after())


@pytest.mark.parametrize("generation", [0, 1, 2])
def test_a_stray_of_any_generation_is_ended_and_the_box_stays_online(generation: int) -> None:
    state = swept(online(generation=2), generation=generation)
    assert lifecycle.due(state, after(900)) is Step.EVICT
    assert phase(state) is Phase.ONLINE
    state = lifecycle.apply(state, OrphansTerminated(instances=(ORPHAN,), terminated=(ORPHAN,)), after(901))
    assert lifecycle.due(state, after(901)) is None
    assert phase(state) is Phase.ONLINE


def test_the_current_box_is_no_stray() -> None:
    state = online()
    assert swept(state, instance_id=instance_of(1)).orphan_instances == ()


def test_what_is_told_while_others_are_being_ended_is_not_forgotten() -> None:
    state = swept(swept(online()), instance_id="i-0000000000000ffff")
    state = lifecycle.apply(state, OrphansTerminated(instances=(ORPHAN,)), after(901))
    assert state.orphan_instances == ("i-0000000000000ffff",)
    assert lifecycle.due(state, after(901)) is Step.EVICT


def test_a_stray_waits_for_the_steps_of_a_flight() -> None:
    state, request = asked(online(), after(800), requested_by="admin:alice", observed_generation=1)
    assert request.outcome is OutcomeKind.ACCEPTED
    state = swept(state)
    assert lifecycle.due(state, after(900)) is Step.OPEN
    for _ in range(4):
        state = step_done(state, after(900))
    assert lifecycle.due(state, after(900)) is Step.EVICT


def test_a_stray_of_a_stopped_workspace_is_ended_and_it_stays_stopped() -> None:
    state, _ = asked(online(), after(800), kind=RequestKind.STOP, requested_by="admin:alice")
    state = swept(awaiting(state, after(800)))
    assert lifecycle.due(state, after(900)) is Step.EVICT
    state = lifecycle.apply(state, OrphansTerminated(instances=(ORPHAN,), terminated=(ORPHAN,)), after(901))
    assert lifecycle.due(state, after(901)) is None
    assert phase(state) is Phase.STOPPED


def test_a_stray_does_not_hold_up_a_deletion() -> None:
    state, _ = asked(online(), after(800), kind=RequestKind.DELETE, requested_by="admin:alice")
    state = awaiting(swept(state), after(900))
    assert phase(state) is Phase.DELETED


def test_many_strays_are_bounded() -> None:
    state = online()
    for number in range(1_000):
        state = swept(state, instance_id=f"i-{number + 16:017x}")
    assert 0 < len(state.orphan_instances) < 100


def test_an_unclaimed_launch_is_taken_up_again_and_adopted() -> None:
    state = halted()
    assert phase(state) is Phase.FAILED
    assert lifecycle.due(state, after(900)) is None
    state = swept(state, BoxEventKind.UNRECORDED_INSTANCE)
    assert lifecycle.due(state, after(900)) is Step.LAUNCH
    adopted = LaunchResult(instance_id=ORPHAN, private_ip="10.0.0.1", adopted=True)
    state = lifecycle.apply(state, adopted, after(901))
    assert lifecycle.due(state, after(901)) is Step.ADDRESS
    assert state.box.instance_id == ORPHAN


def test_an_unclaimed_launch_that_is_being_tried_again_does_not_wait_any_longer() -> None:
    state = new()
    while lifecycle.due(state, after()) is not Step.LAUNCH:
        state = step_done(state, after())
    failure = StepFailed(step=Step.LAUNCH, code="X", message="no", hint="wait", retryable=True)
    for _ in range(9):
        state = lifecycle.apply(state, failure, after(890))
    assert lifecycle.due(state, after(900)) is None
    assert lifecycle.due(swept(state, BoxEventKind.UNRECORDED_INSTANCE), after(900)) is Step.LAUNCH


def test_an_unclaimed_launch_that_was_adopted_meanwhile_changes_nothing() -> None:
    state = online()
    assert swept(state, BoxEventKind.UNRECORDED_INSTANCE) == state


def test_an_unclaimed_launch_of_an_older_generation_changes_nothing() -> None:
    state = replace(online(generation=2))
    assert swept(state, BoxEventKind.UNRECORDED_INSTANCE, generation=1) == state


def test_an_unclaimed_launch_of_a_stopped_workspace_starts_nothing() -> None:
    state, _ = asked(halted(), after(800), kind=RequestKind.STOP, requested_by="admin:alice")
    state = awaiting(state, after(800))
    state = swept(state, BoxEventKind.UNRECORDED_INSTANCE)
    assert phase(state) is Phase.STOPPED
    assert lifecycle.due(state, after(900)) is None
