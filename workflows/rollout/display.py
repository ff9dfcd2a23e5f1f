"""What people see of a fleet rollout: its progress, its report, the words of the UI.

Says what the rollout is; decides nothing.
"""

from collections.abc import Sequence
from datetime import datetime

from workflows.rollout import rules
from workflows.rollout.messages import RolloutMember, RolloutProgress
from workflows.rollout.rules import Member, Outcome, Rollout, RolloutState
from workflows.shared.markdown import code, plain, table

MAX_LISTED = 30
"""Of each kind in the current details, which are no place for thousands of lines."""


def progress(
    rollout: Rollout | None, *, rollout_id: str, began_at: datetime | None, ended_at: datetime | None
) -> RolloutProgress:
    """The answer of the `progress` query; once it has ended, the report."""
    if rollout is None:
        rollout = Rollout(members=(), allowed=0, max_failures=0)
        return _progress(rollout, None, "the plan is being made", rollout_id, began_at, ended_at)
    return _progress(rollout, rollout.state, waiting_for(rollout), rollout_id, began_at, ended_at)


def _progress(
    rollout: Rollout,
    state: RolloutState | None,
    why: str,
    rollout_id: str,
    began_at: datetime | None,
    ended_at: datetime | None,
) -> RolloutProgress:
    return RolloutProgress(
        rollout_id=rollout_id,
        state=state,
        over=state is not None and rules.is_over(rollout),
        why=why,
        image_id=rollout.image_id,
        allowed=rollout.allowed,
        unavailable=len(rules.unavailable(rollout)),
        counts={outcome: number for outcome in Outcome if (number := rules.count(rollout, outcome))},
        members=tuple(
            RolloutMember(
                workspace_id=member.workspace_id,
                outcome=member.outcome,
                generation=member.generation,
                detail=member.detail,
            )
            for member in rollout.members
        ),
        began_at=began_at,
        ended_at=ended_at,
    )


def waiting_for(rollout: Rollout) -> str:
    """What the rollout does or waits for, in one sentence."""
    on_the_way = len(rules.in_flight(rollout))
    if rules.is_over(rollout):
        untouched = rules.count(rollout, Outcome.WAITING)
        return f"it has ended: {rollout.why}; {untouched} are untouched" if untouched else "it has ended"
    match rollout.state:
        case RolloutState.PLANNED:
            return (
                f"proceed begins it: {len(rollout.members)} workspaces,"
                f" {rollout.members[0].workspace_id} alone "
                f"first, then at most {rollout.allowed} unavailable at once"
            )
        case RolloutState.PAUSED:
            rest = f"; {on_the_way} are on the way" if on_the_way else ""
            return f"paused: {rollout.why}{rest}. resume goes on, retry_failed adds the failed, abort ends it"
        case RolloutState.ABORTED:
            return f"aborted: {rollout.why}; {on_the_way} are on the way"
        case RolloutState.ROLLING:
            return _rolling(rollout, on_the_way)


def _rolling(rollout: Rollout, on_the_way: int) -> str:
    moving = f"{on_the_way} are on the way" if on_the_way else "none is on the way"
    if not rollout.canary_passed and on_the_way:
        return "the canary is on the way; the others wait for it"
    if rollout.blocked_reason is not None:
        return f"{moving}; nothing new begins: {rollout.blocked_reason}"
    if rules.wants_capacity(rollout) and not rules.next_members(rollout):
        return f"{moving}; {len(rules.unavailable(rollout))} are unavailable, {rollout.allowed} may be"
    return moving


def details(rollout: Rollout, orders: Sequence[str]) -> str:
    """The current details in Markdown: how far it is, what it waits for, who failed and why."""
    counts = ", ".join(
        f"{number} {outcome.replace('_', ' ')}"
        for outcome in Outcome
        if (number := rules.count(rollout, outcome))
    )
    lines = [
        f"**{rollout.state}** — {len(rollout.members)} workspaces: {counts}",
        "",
        f"**Now:** {plain(waiting_for(rollout))}.",
        "",
        f"Image: {code(rollout.image_id) if rollout.image_id else 'as each workspace has it'}. Unavailable: "
        f"{len(rules.unavailable(rollout))}, at most {rollout.allowed} by this rollout.",
    ]
    for title, outcome in (("failed", Outcome.FAILED), ("on the way", Outcome.IN_FLIGHT)):
        lines += _table(title, [member for member in rollout.members if member.outcome is outcome])
    if orders:
        lines += ["", "Orders:", "", *(f"- {plain(order)}" for order in orders)]
    return "\n".join(lines)


def _table(title: str, members: Sequence[Member]) -> list[str]:
    more = len(members) - MAX_LISTED
    rows = [
        (member.workspace_id, str(member.generation or "—"), plain(member.detail))
        for member in members[:MAX_LISTED]
    ]
    return table(
        (title, "generation", "why"), [*rows, *([(f"… and {more} more", "", "")] if more > 0 else [])]
    )
