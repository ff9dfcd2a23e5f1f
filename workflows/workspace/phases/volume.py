"""Data volume: detach from earlier boxes, snapshot, attach to the new box, delete in a deletion."""

from dataclasses import replace
from datetime import datetime, timedelta

from workflows.shared.activity_options import EC2
from workflows.shared.activity_options import SNAPSHOT as SNAPSHOT_OPTIONS
from workflows.volume import contract
from workflows.workspace import events
from workflows.workspace.enums import SnapshotPolicy, Step
from workflows.workspace.events import StepFailed
from workflows.workspace.phases.definition import StepDefinition
from workflows.workspace.phases.transitions import instance_ended, record_failure, succeeded
from workflows.workspace.state import Retry, State

DETACH_AGAIN_AFTER = timedelta(seconds=2)
"""After another instance took the volume."""


def detached(state: State, event: contract.VolumeDetached, _: datetime) -> State:
    """The volume is detached from all earlier boxes.

    If it is attached to the current box already, this generation is being resumed: it needs no snapshot.
    """
    fence = replace(state.fence, volume_free=True, snapshot_over=state.fence.snapshot_over or event.kept)
    return succeeded(replace(state, fence=fence), Step.DETACH)


def snapshot_decided(state: State, event: contract.SnapshotResult, at: datetime) -> State:
    """Continue in any case: requested, not needed, or refused."""
    state = replace(state, fence=replace(state.fence, snapshot_over=True), retry=None)
    if not event.code:
        return succeeded(state, Step.SNAPSHOT)
    failure = StepFailed(
        step=Step.SNAPSHOT,
        code=event.code,
        message=f"no snapshot before generation {state.generation}: {event.detail}",
        hint="The data volume is not affected. The next recreate requests a snapshot again.",
        retryable=True,
    )
    return record_failure(state, failure, at)


def attached(state: State, event: contract.AttachResult, at: datetime) -> State:
    """The box has its volume, or the instance ended, or another instance took the volume."""
    if event.gone:
        return instance_ended(state, Step.ATTACH, event.detail, at)
    if event.volume_id is not None:
        return succeeded(replace(state, box=replace(state.box, volume_id=event.volume_id)), Step.ATTACH)
    retry = Retry(step=Step.DETACH, failures=1, not_before=at + DETACH_AGAIN_AFTER)
    return replace(state, fence=replace(state.fence, volume_free=False), retry=retry)


def _snapshot_failed(state: State, event: StepFailed, at: datetime) -> State:
    # The volume survives, so a recreate never waits for a snapshot.
    state = record_failure(state, event, at)
    return replace(state, retry=None, fence=replace(state.fence, snapshot_over=True))


def _has_volume(state: State) -> bool:
    return state.has_volume and state.provisioning is not None


def _needs_snapshot(state: State) -> bool:
    # A start without an earlier box is no recreate: nothing was written since the last snapshot.
    is_recreate = state.provisioning is not None and not state.provisioning.first_launch
    return state.snapshots is SnapshotPolicy.RECREATE and is_recreate and not state.fence.snapshot_over


DETACH = StepDefinition(
    step=Step.DETACH,
    doing="waiting for the data volume to be detached",
    due=lambda state: _has_volume(state) and not state.fence.volume_free,
    activity=contract.detach_volume,
    request=lambda state, *_: contract.DetachVolume(
        workspace_id=state.workspace_id, generation=state.generation, attempt=state.box.attempt
    ),
    options=EC2,
    result=contract.VolumeDetached,
    apply=detached,
    halts=True,
    provisions=True,
)

SNAPSHOT = StepDefinition(
    step=Step.SNAPSHOT,
    doing="requesting a snapshot of the data volume",
    due=lambda state: _has_volume(state) and _needs_snapshot(state),
    activity=contract.snapshot_volume,
    request=lambda state, *_: contract.SnapshotVolume(
        workspace_id=state.workspace_id, generation=state.generation
    ),
    options=SNAPSHOT_OPTIONS,
    result=contract.SnapshotResult,
    apply=snapshot_decided,
    failed=_snapshot_failed,
)

ATTACH = StepDefinition(
    step=Step.ATTACH,
    doing="waiting for the instance to run, then attaching the data volume",
    due=lambda state: _has_volume(state) and state.box.volume_id is None,
    activity=contract.attach_volume,
    request=lambda state, *_: contract.AttachVolume(
        workspace_id=state.workspace_id,
        generation=state.generation,
        attempt=state.box.attempt,
        instance_id=state.box.instance_id or "",
    ),
    options=EC2,
    result=contract.AttachResult,
    apply=attached,
    interruptible=True,
    halts=True,
    provisions=True,
)

DELETE_VOLUME = StepDefinition(
    step=Step.DELETE_VOLUME,
    doing="deleting the data volume",
    due=lambda state: state.has_volume and not state.volume_deleted,
    activity=contract.delete_volume,
    request=lambda state, *_: contract.DeleteVolume(
        workspace_id=state.workspace_id, generation=state.generation
    ),
    options=EC2,
    result=events.VolumeDeleted,
    apply=lambda state, *_: succeeded(replace(state, volume_deleted=True), Step.DELETE_VOLUME),
)
