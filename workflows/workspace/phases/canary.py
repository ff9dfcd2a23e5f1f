"""Canary: a message that the control plane sends to check whether the agent processes work.

`online` waits for the first answer. A missed canary is sent again with backoff; processed work counts as an
answer. An agent that stays unresponsive is a reason to replace the box.
"""

from dataclasses import replace
from datetime import datetime, timedelta

from workflows.shared.activity_options import BOX
from workflows.workspace import backoff, conditions, contract
from workflows.workspace.enums import CanaryPolicy, CanaryState, Intent, Step
from workflows.workspace.events import StepFailed
from workflows.workspace.phases.definition import Deadline, StepDefinition
from workflows.workspace.phases.transitions import (
    clear_failure,
    record_failure,
    request_recreate,
    retry,
)
from workflows.workspace.state import BackingOff, Provisioning, Settled, State

MAX_IDLE_CANARY_MISSES = 2
IDLE_CANARY_RETRY = timedelta(seconds=60)
"""The wait after the first miss, before the second canary."""


def canary_due(state: State) -> bool:
    """Whether the policy wants a canary to be sent now."""
    return (
        state.timings.canary is not CanaryPolicy.OFF
        and state.box.canary is not CanaryState.ANSWERED
        and conditions.is_reachable(state)
        and state.box.stale_since is None
    )


def canary_completed(state: State, event: contract.CanaryResult, at: datetime) -> State:
    """The agent answered, or missed the canary once more."""
    if event.answered:
        return agent_processing(state, at)
    if state.box.canary is CanaryState.DUE_AGAIN:
        return _missed_while_idle(state, event, at)
    if state.box.canary is CanaryState.ANSWERED:
        return state  # the agent was seen to process work in the meantime
    failure = StepFailed(
        step=Step.CANARY,
        code=event.code,
        message=event.detail,
        hint="Heartbeats arrive, but the agent does not answer: see the agent's log, or recreate the box.",
        retryable=True,
    )
    box = replace(state.box, canary_attempts=state.box.canary_attempts + 1)
    return retry(replace(record_failure(state, failure, at), box=box), Step.CANARY, at)


def agent_unresponsive(state: State, reason: str, at: datetime) -> State:
    """The box is alive and its agent does not process work: degraded, with the reason."""
    if state.box.agent_unresponsive_since is not None:
        return state
    failure = StepFailed(
        step=Step.PROCESS,
        code="not_processing",
        message=f"the box of generation {state.generation} is alive and does not process work: {reason}",
        hint="See the agent's log on the box. Onebox replaces the box if its agent does not recover; "
        "delegations that it did not acknowledge go to the next box.",
        retryable=True,
    )
    box = replace(
        state.box,
        agent_unresponsive_since=at,
        agent_unresponsive_reason=reason,
        replacement_requested=False,
    )
    return replace(record_failure(state, failure, at), box=box)


def agent_processing(state: State, at: datetime) -> State:
    """The agent was seen to process work, which also answers a canary."""
    box = replace(
        state.box,
        canary=CanaryState.ANSWERED,
        processed_at=at,
        agent_unresponsive_since=None,
        agent_unresponsive_reason="",
        replacement_requested=False,
        next_canary_at=at + state.timings.idle if state.timings.canary is CanaryPolicy.IDLE else None,
        canary_misses=0,
    )
    state = clear_failure(clear_failure(replace(state, box=box), Step.CANARY), Step.PROCESS)
    if state.retry is not None and state.retry.step is Step.CANARY:
        state = replace(state, retry=None)
    # With a reachable box, the deferred recreate was for an unresponsive agent: it is no longer needed.
    if isinstance(state.waiting, BackingOff) and conditions.is_reachable(state):
        return replace(state, waiting=Settled())
    return state


def unresponsive_deadline(state: State) -> datetime | None:
    """When an unresponsive agent becomes a reason for a recreate; None if it is not, or already was."""
    since = state.box.agent_unresponsive_since
    if since is None or state.box.replacement_requested or state.halted or state.intent is not Intent.RUN:
        return None
    # A generation whose box is not reachable yet has its register deadline.
    if state.provisioning is not None and not conditions.is_reachable(state):
        return None
    return since + state.timings.not_processing


def _unresponsive_deadline_passed(state: State, at: datetime) -> State:
    state = replace(state, box=replace(state.box, replacement_requested=True))
    if isinstance(state.waiting, Provisioning):
        state = replace(state, waiting=Settled())
    return request_recreate(state, at)


def _canary_deadline(state: State) -> datetime | None:
    if not canary_due(state) or state.box.heartbeat_at is None or state.box.running_since is None:
        return None
    if state.box.canary is not CanaryState.DUE:
        return None  # `_missed_while_idle` counts the misses of an idle agent
    return max(state.box.heartbeat_at, state.box.running_since) + state.timings.canary_deadline


def _canary_deadline_passed(state: State, at: datetime) -> State:
    budget = backoff.record_failed_recreate(state, phase=Step.CANARY, code="canary_missed")
    state = replace(state, box=replace(state.box, canary=CanaryState.MISSED), budget=budget)
    if state.provisioning is not None:
        state = replace(state, waiting=Settled())
    return agent_unresponsive(state, "it did not answer the canary", at)


def _idle_canary_at(state: State) -> datetime | None:
    if state.timings.canary is not CanaryPolicy.IDLE or state.online_since is None:
        return None
    if state.provisioning is not None or not conditions.is_reachable(state):
        return None
    return state.box.next_canary_at if state.box.canary is CanaryState.ANSWERED else None


def _send_idle_canary(state: State, _: datetime) -> State:
    box = replace(
        state.box,
        canary=CanaryState.DUE_AGAIN,
        canary_round=state.box.canary_round + 1,
        canary_attempts=0,
    )
    return replace(state, box=box)


def _missed_while_idle(state: State, event: contract.CanaryResult, at: datetime) -> State:
    """One miss may be a short disturbance; two in a row mean an unresponsive agent."""
    misses = state.box.canary_misses + 1
    box = replace(
        state.box,
        canary=CanaryState.ANSWERED,  # an earlier one was; the next is due soon
        next_canary_at=at + IDLE_CANARY_RETRY,
        canary_misses=misses,
    )
    state = replace(state, box=box, retry=None)
    if misses < MAX_IDLE_CANARY_MISSES:
        return state
    return agent_unresponsive(state, f"{misses} canaries in a row were not answered: {event.detail}", at)


CANARY = StepDefinition(
    step=Step.CANARY,
    doing="sending the agent a canary",
    due=canary_due,
    activity=contract.ask_canary,
    request=lambda state, *_: contract.AskCanary(
        workspace_id=state.workspace_id,
        generation=state.generation,
        attempt=state.box.canary_attempts + 1,
        round=state.box.canary_round,
    ),
    options=BOX,
    result=contract.CanaryResult,
    apply=canary_completed,
    interruptible=True,
    provisions=True,
)

IDLE_CANARY = Deadline(at=_idle_canary_at, passed=_send_idle_canary)
UNRESPONSIVE_DEADLINE = Deadline(at=unresponsive_deadline, passed=_unresponsive_deadline_passed)
CANARY_DEADLINE = Deadline(at=_canary_deadline, passed=_canary_deadline_passed)
