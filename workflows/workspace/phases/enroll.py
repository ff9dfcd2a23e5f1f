"""Enroll: create the workspace record if there is none, and start from what it says."""

from dataclasses import replace
from datetime import datetime, timedelta

from workflows.shared.activity_options import DATABASE
from workflows.workspace import contract
from workflows.workspace.admission import merge_recorded, start_provisioning
from workflows.workspace.enums import Intent, Step
from workflows.workspace.phases.definition import StepDefinition
from workflows.workspace.phases.transitions import clear_failure, retry
from workflows.workspace.state import Box, Fence, Provisioning, Settled, State

RELOAD_AFTER = timedelta(seconds=1)
"""A record that stays ahead, as after a restore, must not cause a loop."""


def reload_record(state: State, at: datetime) -> State:
    """Read the record again: it has a newer generation than this state."""
    return retry(replace(state, enrolled=False), Step.ENROLL, at, after=RELOAD_AFTER)


def enrolled(state: State, event: contract.Enrolled, at: datetime) -> State:
    """Start from the record: a new workspace gets its first generation, a known one resumes its own."""
    known = replace(
        clear_failure(merge_recorded(state, event.decided), Step.ENROLL),
        enrolled=True,
        timings=event.timings,
        generation=event.generation,
        opened=event.generation,
        revision=max(state.revision, event.revision),
        budget=replace(
            state.budget,
            automatic=event.automatic,
            accepted=event.accepted,
            streak=max(state.budget.streak, len(event.automatic)),
        ),
        fence=Fence(),
        has_volume=event.has_volume,
        snapshots=event.snapshots,
        retry=None,
    )
    if event.deleted:
        return replace(
            known,
            intent=Intent.DELETE,
            closed=True,
            address_removed=True,
            volume_deleted=True,
            fence=Fence(confirmed=True),
        )
    if state.intent is not Intent.RUN:
        return replace(known, closed=False)  # accepted, and not recorded yet
    if event.intent is not Intent.RUN:
        return replace(known.now_waiting(Settled()), intent=event.intent, closed=not event.current)
    if not event.current:
        return start_provisioning(known, at)
    if state.provisioning is not None and state.generation > event.generation:
        return replace(known, generation=state.generation)  # accepted, and not opened yet
    resumed = Provisioning(
        generation=event.generation,
        since=at,
        requesters=state.provisioning.requesters if state.provisioning else (),
    )
    return replace(
        known.now_waiting(resumed),
        intent=Intent.RUN,
        online_since=None,
        box=Box(
            attempt=event.attempt,
            registered_at=event.registered_at,
            heartbeat_at=event.heartbeat_at,
            credential_lost_at=event.credential_lost_at,
            agent_unresponsive_since=event.agent_unresponsive_since,
            agent_unresponsive_reason=event.agent_unresponsive_reason,
        ),
    )


ENROLL = StepDefinition(
    step=Step.ENROLL,
    doing="reading the workspace record",
    due=lambda state: not state.enrolled,
    activity=contract.enroll,
    request=lambda state, spec, _: contract.Enroll(workspace_id=state.workspace_id, spec=spec),
    options=DATABASE,
    result=contract.Enrolled,
    apply=enrolled,
)
