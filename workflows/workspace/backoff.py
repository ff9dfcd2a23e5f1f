"""Budget and backoff of automatic recreates, and the workflow's own requests. Standard library only."""

import hashlib
from dataclasses import replace
from datetime import datetime, timedelta

from workflows.workspace.enums import Step
from workflows.workspace.requests import OutcomeKind, Request, RequestInput, RequestKind
from workflows.workspace.state import BackingOff, Exhausted, RecreateBudget, State

INITIAL_BACKOFF = timedelta(minutes=2)
MAX_BACKOFF = timedelta(minutes=60)
JITTER = 0.2
"""Spreads the recreates of workspaces that failed together."""

BUDGETS = ((3, timedelta(hours=1)), (6, timedelta(hours=24)))
"""Automatic recreates allowed per window. Further ones do not help if the first ones failed."""

HEALTHY_AFTER = timedelta(hours=1)
"""A box that is online for this long has recovered; a later failure starts a new streak."""

DAY = timedelta(hours=24)

SAME_FAILURE_LIMIT = 2
"""Consecutive recreates with the same error after which another automatic one cannot help."""

REQUESTER = "lifecycle"
"""`requested_by` of the workflow's own requests; automatic, like any program's."""


def record_recreate(budget: RecreateBudget, at: datetime, *, automatic: bool) -> RecreateBudget:
    """The budget after an accepted recreate. A manual one also resets the streak."""
    kept = tuple(then for then in budget.accepted if at - then < DAY)
    counted = tuple(then for then in budget.automatic if at - then < DAY)
    if automatic:
        return replace(budget, automatic=(*counted, at), accepted=(*kept, at), streak=budget.streak + 1)
    return RecreateBudget(automatic=counted, accepted=(*kept, at))


def record_failed_recreate(state: State, *, phase: Step, code: str) -> RecreateBudget:
    """The budget after a failed recreate. The first launch of a workspace is no recreate."""
    if state.provisioning is None or state.provisioning.first_launch:
        return state.budget
    failures = (*state.budget.failures, f"{phase}: {code}")[-SAME_FAILURE_LIMIT:]
    return replace(state.budget, failures=failures)


def repeated_failure(budget: RecreateBudget) -> str | None:
    """The error that the last recreates had in common; None if another recreate may help."""
    same = len(budget.failures) == SAME_FAILURE_LIMIT and len(set(budget.failures)) == 1
    return budget.failures[0] if same else None


def recreates_last_day(budget: RecreateBudget, at: datetime) -> int:
    """The number of recreates accepted in the last 24 h."""
    return sum(at - then < DAY for then in budget.accepted)


def reset_when_healthy(state: State, at: datetime) -> State:
    """Reset the streak once the box has been online for an hour."""
    since = state.online_since if state.box.stale_since is None else None
    if state.budget.streak and since is not None and at - since >= HEALTHY_AFTER:
        return replace(state, budget=replace(state.budget, streak=0))
    return state


def backoff(workspace_id: str, streak: int) -> timedelta:
    """The time from the last automatic recreate to the next: 2, 4, 8 … 60 min, with 20 % jitter.

    The jitter is derived from workspace and streak, so that a replay computes the same.
    """
    if streak == 0:
        return timedelta()
    base = min(INITIAL_BACKOFF * (1 << min(streak - 1, 10)), MAX_BACKOFF)
    draw = int.from_bytes(hashlib.sha256(f"{workspace_id}/{streak}".encode()).digest()[:4]) / 2**32
    return base * (1 + JITTER * (2 * draw - 1))


def backoff_until(state: State) -> datetime | None:
    """When the backoff after the last automatic recreate ends; None without one in the last 24 h."""
    if not state.budget.automatic:
        return None
    return state.budget.automatic[-1] + backoff(state.workspace_id, state.budget.streak)


def budget_resets_at(budget: RecreateBudget, at: datetime) -> datetime | None:
    """When the budget allows an automatic recreate again; None if it does now."""
    free = [
        budget.automatic[-limit] + window
        for limit, window in BUDGETS
        if sum(at - then < window for then in budget.automatic) >= limit
    ]
    return max(free, default=None)


def recreate_request(state: State, at: datetime) -> RequestInput:
    """The workflow's own request to replace the current box, after a missed deadline."""
    return RequestInput(
        kind=RequestKind.RECREATE,
        request_id=f"{REQUESTER}-{state.generation}-{at:%Y%m%dT%H%M%S%f}",
        requested_by=REQUESTER,
        reason=state.last_error.message if state.last_error else "the box is not online",
        observed_generation=state.generation,
    )


def on_decided(state: State, decided: Request, at: datetime) -> State:
    """The state after the workflow's own request was decided: a deferred one is sent again at `retry_at`.

    Without a `retry_at`, or with the budget spent, only an operator can help.
    """
    if decided.outcome is not OutcomeKind.DEFERRED:
        return state
    if decided.retry_at is None or budget_resets_at(state.budget, at) is not None:
        return state.now_waiting(Exhausted())
    return state.now_waiting(BackingOff(until=decided.retry_at, reason=decided.detail))
