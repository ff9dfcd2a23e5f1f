"""Registration: wait for the box to register and send heartbeats, until the register deadline.

Before a deadline counts as missed, PostgreSQL is read. An outage of the control plane may have delayed the
events of a healthy box, which must not be replaced.
"""

from dataclasses import replace
from datetime import datetime, timedelta

from workflows.shared.activity_options import DATABASE
from workflows.workspace import backoff, conditions, contract
from workflows.workspace.diagnosis import CREDENTIAL_LOST, RegistrationStatus, diagnose
from workflows.workspace.enums import Step
from workflows.workspace.events import StepFailed
from workflows.workspace.phases.definition import Deadline, StepDefinition
from workflows.workspace.phases.transitions import (
    clear_failure,
    record_failure,
    request_recreate,
    succeeded,
)
from workflows.workspace.state import Box, Settled, State


def register_deadline(state: State) -> datetime | None:
    """When the box must have registered and sent a heartbeat; None if it has, or nothing waits for it."""
    box = state.box
    if state.provisioning is None or box.running_since is None:
        return None
    if conditions.is_reachable(state) and box.stale_since is None:
        return None
    return box.running_since + state.timings.register_deadline


def registration_checked(state: State, registration: RegistrationStatus, at: datetime) -> State:
    """Apply what PostgreSQL has recorded about the box: it may be healthy."""
    box = replace(
        state.box,
        checking_registration=False,
        registration=registration,
        registered_at=state.box.registered_at or registration.registered_at,
    )
    state = replace(state, box=box)
    seen_at = registration.heartbeat_at
    if seen_at is not None and (box.last_liveness_at is None or seen_at > box.last_liveness_at):
        state = heartbeat_received(state, seen_at, at)
    return succeeded(state, Step.CHECK_REGISTRATION)


def heartbeat_received(state: State, sent_at: datetime, at: datetime) -> State:
    """The box sends heartbeats with a valid token: staleness and a lost credential are over."""
    if state.box.credential_lost_at is not None:
        state = clear_failure(state, Step.AWAIT_REGISTRATION)
    box = replace(
        state.box,
        heartbeat_at=state.box.heartbeat_at or at,
        stale_since=None,
        credential_lost_at=None,
        last_liveness_at=sent_at,
    )
    return replace(state, box=box)


def credential_lost(state: State, lost_at: datetime, at: datetime) -> State:
    """The box sends heartbeats without a valid token."""
    failure = StepFailed(
        step=Step.AWAIT_REGISTRATION,
        code=CREDENTIAL_LOST.code,
        message=CREDENTIAL_LOST.message,
        hint=CREDENTIAL_LOST.hint,
        retryable=True,
    )
    box: Box = replace(state.box, credential_lost_at=lost_at, last_liveness_at=lost_at)
    return replace(record_failure(state, failure, at), box=box)


def _deadline(state: State) -> datetime | None:
    return None if state.box.checking_registration else register_deadline(state)


def _deadline_passed(state: State, at: datetime) -> State:
    if state.box.registration is None:
        return replace(state, box=replace(state.box, checking_registration=True))
    missed = _missed(state)
    budget = backoff.record_failed_recreate(state, phase=missed.step, code=missed.code)
    state = replace(record_failure(state, missed, at), budget=budget)
    return request_recreate(state.now_waiting(Settled()), at)


def _missed(state: State) -> StepFailed:
    within = _format_duration(state.timings.register_deadline)
    if state.box.registration is not None and state.box.stale_since is None:
        why = diagnose(state.box.registration)
        return StepFailed(
            step=Step.AWAIT_REGISTRATION,
            code=why.code,
            message=f"generation {state.generation} was not online within {within}: {why.message}",
            hint=why.hint,
            retryable=True,
        )
    return StepFailed(
        step=Step.AWAIT_REGISTRATION,
        code="fell_silent",
        message=f"the box of generation {state.generation} registered and its heartbeats stopped "
        f"within {within} of running",
        hint="The runtime ended, or lost its route to the register API: see the agent's log on the box.",
        retryable=True,
    )


def _format_duration(duration: timedelta) -> str:
    seconds = duration.total_seconds()
    return f"{seconds:g} s" if seconds < 60 else f"{seconds / 60:g} min"


CHECK_REGISTRATION = StepDefinition(
    step=Step.CHECK_REGISTRATION,
    doing="checking what the box did before its deadline passed",
    due=lambda state: state.provisioning is not None and state.box.checking_registration,
    activity=contract.check_registration,
    request=lambda state, *_: contract.CheckRegistration(
        workspace_id=state.workspace_id, generation=state.generation
    ),
    options=DATABASE,
    result=RegistrationStatus,
    apply=registration_checked,
    provisions=True,
)

REGISTER_DEADLINE = Deadline(at=_deadline, passed=_deadline_passed)
