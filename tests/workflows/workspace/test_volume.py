"""The steps that move the data volume from box to box."""

from dataclasses import replace

import pytest

from tests.workflows.workspace.scenarios import (
    T0,
    after,
    due,
    enrolled,
    new,
    online,
    registered,
    send_request,
    step_done,
)
from workflows.volume.contract import AttachResult, SnapshotResult, VolumeDetached
from workflows.workspace import lifecycle
from workflows.workspace.conditions import phase
from workflows.workspace.enums import Phase, SnapshotPolicy, Step
from workflows.workspace.events import Event, StepFailed
from workflows.workspace.requests import RequestKind
from workflows.workspace.state import State

MOVING = [Step.DETACH, Step.LAUNCH, Step.ATTACH, Step.ADDRESS]


def with_volume(state: State, *, snapshots: SnapshotPolicy = SnapshotPolicy.RECREATE) -> State:
    return replace(state, has_volume=True, snapshots=snapshots)


def carried_out(state: State, *, until: Step | None = None) -> tuple[State, list[Step]]:
    """The state after all due steps have succeeded, and the steps."""
    done = []
    while (step := due(state, T0)) is not None and step is not until:
        state = step_done(state, T0)
        done.append(step)
    return state, done


def recreated(*, snapshots: SnapshotPolicy = SnapshotPolicy.RECREATE) -> State:
    """A workspace with a volume whose generation 1 is online and whose recreate was accepted."""
    first, _ = carried_out(with_volume(new(), snapshots=snapshots))
    state, _ = send_request(registered(first, T0), T0, requested_by="admin:alice", observed_generation=1)
    return state


def test_a_new_workspace_gets_its_volume_after_the_launch_and_no_snapshot() -> None:
    _, done = carried_out(with_volume(new()))
    assert done == [Step.OPEN, Step.FENCE, *MOVING]


def test_a_recreate_detaches_after_the_fence_takes_a_snapshot_and_attaches_before_the_address() -> None:
    _, done = carried_out(recreated())
    assert done == [Step.OPEN, Step.FENCE, Step.DETACH, Step.SNAPSHOT, *MOVING[1:]]


def test_without_the_policy_there_is_no_snapshot() -> None:
    _, done = carried_out(recreated(snapshots=SnapshotPolicy.OFF))
    assert done == [Step.OPEN, Step.FENCE, *MOVING]


def test_a_start_after_a_stop_is_no_recreate() -> None:
    state, _ = carried_out(recreated())
    state, _ = send_request(registered(state, T0), T0, kind=RequestKind.STOP, requested_by="admin:alice")
    state, done = carried_out(state)
    assert done == [Step.CLOSE, Step.FENCE]
    assert phase(state) is Phase.STOPPED
    state, _ = send_request(state, T0, kind=RequestKind.START, requested_by="admin:alice")
    _, done = carried_out(state)
    assert done == [Step.OPEN, Step.FENCE, *MOVING]


def test_a_workspace_without_a_volume_has_none_of_its_steps() -> None:
    state, _ = send_request(online(), T0, requested_by="admin:alice", observed_generation=1)
    _, done = carried_out(state)
    assert done == [Step.OPEN, Step.FENCE, Step.LAUNCH, Step.ADDRESS]


@pytest.mark.parametrize(
    "result",
    [
        SnapshotResult(code="SnapshotCreationPerVolumeRateExceeded", detail="too soon"),
        StepFailed(step=Step.SNAPSHOT, code="aws_unreachable", message="?", hint="wait", retryable=True),
        StepFailed(step=Step.SNAPSHOT, code="Unauthorized", message="no", hint="allow", retryable=False),
    ],
)
def test_a_failed_snapshot_is_an_error_and_delays_nothing(result: Event) -> None:
    state, _ = carried_out(recreated(), until=Step.SNAPSHOT)
    state = lifecycle.apply(state, result, T0)
    assert state.last_error is not None
    assert state.last_error.phase is Step.SNAPSHOT
    state, done = carried_out(state)
    assert done == MOVING[1:]
    assert phase(registered(state, T0)) is Phase.ONLINE


def test_the_error_of_a_snapshot_is_cleared_by_the_next_one() -> None:
    state, _ = carried_out(recreated(), until=Step.SNAPSHOT)
    state = lifecycle.apply(state, SnapshotResult(code="Throttled", detail="too soon"), T0)
    state, _ = carried_out(state)
    state, _ = send_request(registered(state, T0), T0, requested_by="admin:alice", observed_generation=2)
    state, done = carried_out(state)
    assert Step.SNAPSHOT in done
    assert state.last_error is None


def test_orphan_instances_lead_back_to_the_fence_without_a_second_snapshot() -> None:
    from workflows.workspace.contract import LaunchResult

    state, _ = carried_out(recreated(), until=Step.LAUNCH)
    state = lifecycle.apply(state, LaunchResult(orphan_instances=("i-00000001",)), T0)
    later, done = after(5), []
    while (step := due(state, later)) is not None:
        state = step_done(state, later)
        done.append(step)
    assert done == [Step.FENCE, *MOVING]


def test_a_volume_attached_to_another_instance_is_detached_again() -> None:
    state, _ = carried_out(recreated(), until=Step.ATTACH)
    state = lifecycle.apply(state, AttachResult(occupied_by="i-00000001"), T0)
    assert due(state, T0) is None
    later, done = after(2), []
    while (step := due(state, later)) is not None:
        state = step_done(state, later)
        done.append(step)
    assert done == [Step.DETACH, Step.ATTACH, Step.ADDRESS]


def test_an_instance_that_ends_before_it_has_its_volume_is_replaced() -> None:
    state, _ = carried_out(recreated(), until=Step.ATTACH)
    state = lifecycle.apply(state, AttachResult(gone=True, detail="no room"), T0)
    assert state.last_error is not None
    assert (state.last_error.code, state.last_error.phase) == ("instance_ended", Step.ATTACH)
    assert [it.requested_by for it in state.pending] == ["lifecycle"]


@pytest.mark.parametrize("step", [Step.DETACH, Step.ATTACH])
def test_a_final_failure_halts_and_a_recreate_retries(step: Step) -> None:
    state, _ = carried_out(recreated(), until=step)
    failure = StepFailed(step=step, code="volume_missing", message="gone", hint="restore it", retryable=False)
    state = lifecycle.apply(state, failure, T0)
    assert phase(state) is Phase.FAILED
    assert state.volume_deleted is False
    state, _ = send_request(state, T0, requested_by="admin:alice", observed_generation=2)
    state, _ = carried_out(state)
    assert state.last_error is None


def test_the_box_of_a_resumed_generation_keeps_its_volume_and_gets_no_snapshot() -> None:
    record = replace(
        enrolled(generation=3), has_volume=True, snapshots=SnapshotPolicy.RECREATE, registered_at=T0
    )
    state = lifecycle.apply(State(workspace_id="ws-1"), record, T0)
    state, _ = carried_out(state, until=Step.DETACH)
    state = lifecycle.apply(state, VolumeDetached(kept=True), T0)
    _, done = carried_out(state)
    assert done == MOVING[1:]


def test_a_deletion_ends_only_when_the_volume_is_deleted() -> None:
    state, _ = send_request(recreated(), T0, kind=RequestKind.DELETE, requested_by="admin:alice")
    state, done = carried_out(state, until=Step.DELETE_VOLUME)
    assert done == [Step.CLOSE, Step.FENCE, Step.REMOVE_ADDRESS]
    assert phase(state) is Phase.DELETING
    failure = StepFailed(
        step=Step.DELETE_VOLUME, code="AccessDenied", message="no", hint="allow", retryable=False
    )
    assert lifecycle.wake_at(lifecycle.apply(state, failure, T0)) == after(60)
    state, _ = carried_out(state)
    assert phase(state) is Phase.DELETED


def test_a_resumed_deletion_deletes_the_volume() -> None:
    from workflows.workspace.enums import Intent

    record = replace(enrolled(generation=3, intent=Intent.DELETE), has_volume=True)
    _, done = carried_out(lifecycle.apply(State(workspace_id="ws-1"), record, T0))
    assert done[-2:] == [Step.REMOVE_ADDRESS, Step.DELETE_VOLUME]
    over = lifecycle.apply(State(workspace_id="ws-1"), replace(record, deleted=True), T0)
    assert phase(over) is Phase.DELETED
