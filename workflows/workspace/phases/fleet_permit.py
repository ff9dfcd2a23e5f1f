"""Fleet permit: automatic recreates pass the fleet's concurrency limit and circuit breaker."""

from dataclasses import replace
from datetime import datetime, timedelta

from workflows.fleet import contract as fleet_contract
from workflows.fleet.contract import FleetPermit
from workflows.shared import activity_options
from workflows.workspace import backoff, conditions
from workflows.workspace.admission import admit, expire, reject
from workflows.workspace.enums import Intent, Step
from workflows.workspace.events import StepFailed
from workflows.workspace.phases.definition import StepDefinition
from workflows.workspace.requests import Request, RequestInput
from workflows.workspace.state import FleetFreeze, State

UNAVAILABLE_RETRY = timedelta(seconds=60)
"""The wait after the state of the fleet could not be read."""


def apply_permit(state: State, permit: FleetPermit, at: datetime) -> State:
    """Decide the pending requests. A refusal also defers later ones until `retry_after`."""
    waiting, state = state.pending, replace(state, pending=())
    for request_input in waiting:
        state = _decide(state, request_input, at, permit)
    if permit.granted or not waiting or state.frozen is not None:
        return state
    freeze = FleetFreeze(until=at + permit.retry_after, reason=permit.reason, at_capacity=not permit.frozen)
    return replace(state, frozen=freeze)


def permit_unavailable(failure: StepFailed) -> FleetPermit:
    """A refusal, because the state of the fleet could not be read."""
    return FleetPermit(
        granted=False,
        frozen=True,
        reason=f"its state cannot be read ({failure.code}): {failure.message}",
        retry_after=UNAVAILABLE_RETRY,
    )


def decide_pending(state: State, at: datetime) -> State:
    """Decide the pending requests that no longer need a permit: superseded, or their cause is gone."""
    waiting, state = state.pending, replace(state, pending=())
    for request_input in waiting:
        state = _decide(state, request_input, at, None)
    return state


def _decide(state: State, request_input: RequestInput, at: datetime, permit: FleetPermit | None) -> State:
    decided: Request | None
    if state.intent is not Intent.RUN:
        state, _ = reject(state, request_input, f"the workspace is now {conditions.phase(state)}", at=at)
        return state
    own = request_input.requested_by == backoff.REQUESTER
    if own and conditions.is_serving(state):
        detail = f"generation {state.generation} came online in the meantime"
        state, _ = expire(state, request_input, detail, at=at)
        return state
    state, decided = admit(state, request_input, at, permit=permit)
    return backoff.on_decided(state, decided, at) if own and decided is not None else state


REQUEST_FLEET_PERMIT = StepDefinition(
    step=Step.FLEET_PERMIT,
    doing="checking whether the fleet allows an automatic recreate",
    due=lambda state: bool(state.pending),
    activity=fleet_contract.request_fleet_permit,
    request=lambda state, *_: fleet_contract.RequestFleetPermit(
        workspace_id=state.workspace_id, generation=state.generation + 1
    ),
    options=activity_options.FLEET_PERMIT,
    result=FleetPermit,
    apply=apply_permit,
    failed=lambda state, failure, at: apply_permit(state, permit_unavailable(failure), at),
)
