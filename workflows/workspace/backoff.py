"""How often a workspace may be recreated by automatic requests. Standard library only.

Computes spacing and budget from what was accepted before; it neither admits nor records anything.
"""

import hashlib
from dataclasses import replace
from datetime import datetime, timedelta

from workflows.workspace.state import RecreateBudget, State, Step

INITIAL_BACKOFF = timedelta(minutes=2)
MAX_BACKOFF = timedelta(minutes=60)
JITTER = 0.2
"""Workspaces that failed together are not asked for again together."""

BUDGETS = ((3, timedelta(hours=1)), (6, timedelta(hours=24)))
"""More recreates than these never helped where the first ones did not."""

HEALTHY_AFTER = timedelta(hours=1)
"""A box online for this long has recovered: the next trouble is a new one."""

DAY = timedelta(hours=24)

SAME_FAILURE_LIMIT = 2
"""Recreates that failed alike in a row: what did not help twice does not help a third time."""


def record_recreate(budget: RecreateBudget, at: datetime, *, automatic: bool) -> RecreateBudget:
    """Count an accepted recreate. A human's clears the latch of a spent budget and the streak."""
    kept = tuple(then for then in budget.accepted if at - then < DAY)
    counted = tuple(then for then in budget.automatic if at - then < DAY)
    if automatic:
        return replace(budget, automatic=(*counted, at), accepted=(*kept, at), streak=budget.streak + 1)
    return RecreateBudget(automatic=counted, accepted=(*kept, at))


def record_failed_recreate(state: State, *, phase: Step, code: str) -> RecreateBudget:
    """Remember how a recreate failed; a box that was the workspace's first one is no recreate."""
    recovery = state.budget
    if state.provisioning is None or state.provisioning.first_launch:
        return recovery
    return replace(recovery, failures=(*recovery.failures, f"{phase}: {code}")[-SAME_FAILURE_LIMIT:])


def repeated_failure(budget: RecreateBudget) -> str | None:
    """How the last recreates failed, if all of them did alike; None if another one may help."""
    alike = len(budget.failures) == SAME_FAILURE_LIMIT and len(set(budget.failures)) == 1
    return budget.failures[0] if alike else None


def recreates_last_day(budget: RecreateBudget, at: datetime) -> int:
    """How many recreates were accepted in the last 24 h."""
    return sum(at - then < DAY for then in budget.accepted)


def reset_when_healthy(state: State, at: datetime) -> State:
    """Forget the streak once the box has been online for an hour."""
    since = state.online_since if state.box.stale_since is None else None
    if state.budget.streak and since is not None and at - since >= HEALTHY_AFTER:
        return replace(state, budget=replace(state.budget, streak=0))
    return state


def backoff(workspace_id: str, streak: int) -> timedelta:
    """The time from the last automatic recreate to the next: 2, 4, 8 … 60 min, within 20 %.

    The jitter is drawn from the workspace and the streak, so that it is the same on replay.
    """
    if streak == 0:
        return timedelta()
    base = min(INITIAL_BACKOFF * (1 << min(streak - 1, 10)), MAX_BACKOFF)
    draw = int.from_bytes(hashlib.sha256(f"{workspace_id}/{streak}".encode()).digest()[:4]) / 2**32
    return base * (1 + JITTER * (2 * draw - 1))


def backoff_until(state: State) -> datetime | None:
    """Until when the next automatic recreate has to wait, after the ones before."""
    if not state.budget.automatic:
        return None
    return state.budget.automatic[-1] + backoff(state.workspace_id, state.budget.streak)


def budget_resets_at(budget: RecreateBudget, at: datetime) -> datetime | None:
    """When the budget allows a recreate again; None if it does now."""
    frees = [
        budget.automatic[-most] + window
        for most, window in BUDGETS
        if sum(at - then < window for then in budget.automatic) >= most
    ]
    return max(frees, default=None)
