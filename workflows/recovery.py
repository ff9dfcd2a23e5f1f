"""How often a workspace may be recreated by automatic requests. Standard library only.

Computes spacing and budget from what was accepted before; it neither admits nor records anything.
"""

import hashlib
from dataclasses import replace
from datetime import datetime, timedelta

from workflows.state import Recovery, State, Step

FIRST_SPACING = timedelta(minutes=2)
LONGEST_SPACING = timedelta(minutes=60)
JITTER = 0.2
"""Workspaces that failed together are not asked for again together."""

BUDGETS = ((3, timedelta(hours=1)), (6, timedelta(hours=24)))
"""More recreates than these never helped where the first ones did not."""

HEALTHY_AFTER = timedelta(hours=1)
"""A box online for this long has recovered: the next trouble is a new one."""

DAY = timedelta(hours=24)

SAME_FAILURES = 2
"""Recreates that failed alike in a row: what did not help twice does not help a third time."""


def noted(recovery: Recovery, at: datetime, *, automatic: bool) -> Recovery:
    """Count an accepted recreate. A human's clears the latch of a spent budget and the streak."""
    kept = tuple(then for then in recovery.accepted if at - then < DAY)
    counted = tuple(then for then in recovery.automatic if at - then < DAY)
    if automatic:
        return replace(recovery, automatic=(*counted, at), accepted=(*kept, at), streak=recovery.streak + 1)
    return Recovery(automatic=counted, accepted=(*kept, at))


def failed(state: State, *, phase: Step, code: str) -> Recovery:
    """Remember how a recreate failed; a box that was the workspace's first one is no recreate."""
    recovery = state.recovery
    if state.flight is None or state.flight.first_launch:
        return recovery
    return replace(recovery, failures=(*recovery.failures, f"{phase}: {code}")[-SAME_FAILURES:])


def futile(recovery: Recovery) -> str | None:
    """How the last recreates failed, if all of them did alike; None if another one may help."""
    alike = len(recovery.failures) == SAME_FAILURES and len(set(recovery.failures)) == 1
    return recovery.failures[0] if alike else None


def recreates(recovery: Recovery, at: datetime) -> int:
    """How many recreates were accepted in the last 24 h."""
    return sum(at - then < DAY for then in recovery.accepted)


def healthy(state: State, at: datetime) -> State:
    """Forget the streak once the box has been online for an hour."""
    since = state.online_since if state.box.silent_since is None else None
    if state.recovery.streak and since is not None and at - since >= HEALTHY_AFTER:
        return replace(state, recovery=replace(state.recovery, streak=0))
    return state


def spacing(workspace_id: str, streak: int) -> timedelta:
    """The time from the last automatic recreate to the next: 2, 4, 8 … 60 min, within 20 %.

    The jitter is drawn from the workspace and the streak, so that it is the same on replay.
    """
    if streak == 0:
        return timedelta()
    base = min(FIRST_SPACING * (1 << min(streak - 1, 10)), LONGEST_SPACING)
    draw = int.from_bytes(hashlib.sha256(f"{workspace_id}/{streak}".encode()).digest()[:4]) / 2**32
    return base * (1 + JITTER * (2 * draw - 1))


def spaced_until(state: State) -> datetime | None:
    """Until when the next automatic recreate has to wait, after the ones before."""
    if not state.recovery.automatic:
        return None
    return state.recovery.automatic[-1] + spacing(state.workspace_id, state.recovery.streak)


def spent_until(recovery: Recovery, at: datetime) -> datetime | None:
    """When the budget allows a recreate again; None if it does now."""
    frees = [
        recovery.automatic[-most] + window
        for most, window in BUDGETS
        if sum(at - then < window for then in recovery.automatic) >= most
    ]
    return max(frees, default=None)
