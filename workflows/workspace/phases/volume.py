"""The data volume's way from one box to the next, and its end. Standard library only.

It follows from facts only which of its steps is due; how EC2 is asked is the activities' matter.
"""

from dataclasses import replace
from datetime import datetime, timedelta

from workflows.workspace.events import AttachResult, SnapshotResult, StepFailed, VolumeDetached
from workflows.workspace.failures import record_failure
from workflows.workspace.phases.transitions import instance_ended, succeeded
from workflows.workspace.state import Retry, SnapshotPolicy, State, Step

DETACH_RETRY_INTERVAL = timedelta(seconds=2)
"""A volume that another instance has got hold of is taken from it soon."""


def due_before_launch(state: State) -> Step | None:
    """What has to be done between the fence and the launch."""
    if not state.has_volume:
        return None
    if not state.fence.volume_free:
        return Step.DETACH
    return Step.SNAPSHOT if _wants_snapshot(state) else None


def due_before_address(state: State) -> Step | None:
    """What has to be done once there is an instance; the box waits for its volume before it does anything."""
    return Step.ATTACH if state.has_volume and state.box.volume_id is None else None


def due_before_deleted(state: State) -> Step | None:
    """What a deletion leaves to be done."""
    return Step.DELETE_VOLUME if state.has_volume and not state.volume_deleted else None


def detached(state: State, event: VolumeDetached) -> State:
    """No box of before has it any longer; if the current one does, this generation is only taken up again."""
    fence = replace(state.fence, volume_free=True, snapshot_over=state.fence.snapshot_over or event.kept)
    return succeeded(replace(state, fence=fence), Step.DETACH)


def snapshot_decided(state: State, event: SnapshotResult, at: datetime) -> State:
    """Asked for, not needed, or not to be had: it goes on in any case."""
    state = replace(state, fence=replace(state.fence, snapshot_over=True), retry=None)
    if not event.code:
        return succeeded(state, Step.SNAPSHOT)
    failure = StepFailed(
        step=Step.SNAPSHOT,
        code=event.code,
        message=f"no snapshot before generation {state.generation}: {event.detail}",
        hint="The data volume is not affected. A later recreate asks again, once EC2 was left in peace.",
        retryable=True,
    )
    return replace(state, errors=record_failure(state, failure, at))


def attached(state: State, event: AttachResult, at: datetime) -> State:
    """The box has its volume; or it ended; or another instance has got hold of the volume meanwhile."""
    if event.gone:
        return instance_ended(state, Step.ATTACH, event.detail, at)
    if event.volume_id is not None:
        return succeeded(replace(state, box=replace(state.box, volume_id=event.volume_id)), Step.ATTACH)
    retry = Retry(step=Step.DETACH, failures=1, not_before=at + DETACH_RETRY_INTERVAL)
    return replace(state, fence=replace(state.fence, volume_free=False), retry=retry)


def deleted(state: State) -> State:
    """The volume is gone for good."""
    return succeeded(replace(state, volume_deleted=True), Step.DELETE_VOLUME)


def _wants_snapshot(state: State) -> bool:
    # What starts without a box before it is no recreate: nothing has written since the last one.
    is_recreate = state.provisioning is not None and not state.provisioning.first_launch
    return state.snapshots is SnapshotPolicy.RECREATE and is_recreate and not state.fence.snapshot_over
