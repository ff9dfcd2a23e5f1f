"""Progress, report and UI text of a fleet rollout."""

from collections.abc import Sequence
from datetime import datetime

from workflows.rollout import rules
from workflows.rollout.messages import RolloutMember, RolloutProgress
from workflows.rollout.rules import Member, Outcome, Rollout, RolloutState
from workflows.shared.markdown import code, plain, table

MAX_LISTED = 30
"""Members listed per outcome in the current details; `progress` lists all."""


def progress(
    rollout: Rollout | None, *, rollout_id: str, began_at: datetime | None, ended_at: datetime | None
) -> RolloutProgress:
    """The result of the `progress` query, and of the workflow."""
    if rollout is None:
        rollout = Rollout(members=(), allowed=0, max_failures=0)
        return _progress(rollout, None, "planning the rollout", rollout_id, began_at, ended_at)
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
    in_flight = len(rules.in_flight(rollout))
    if rules.is_over(rollout):
        waiting = rules.count(rollout, Outcome.WAITING)
        return f"ended: {rollout.why}; {waiting} never started" if waiting else "ended"
    match rollout.state:
        case RolloutState.PLANNED:
            return (
                f"planned: run proceed to start {len(rollout.members)} workspaces, "
                f"first {rollout.members[0].workspace_id} alone, "
                f"then at most {rollout.allowed} unavailable at once"
            )
        case RolloutState.PAUSED:
            rest = f"; {in_flight} in flight" if in_flight else ""
            return (
                f"paused: {rollout.why}{rest}. Run resume to continue, "
                "retry_failed to retry the failed members, or abort to end the rollout"
            )
        case RolloutState.ABORTED:
            return f"aborted: {rollout.why}; waiting for {in_flight} in flight"
        case RolloutState.ROLLING:
            return _rolling(rollout, in_flight)


def _rolling(rollout: Rollout, in_flight: int) -> str:
    if not rollout.canary_passed and in_flight:
        return "the canary is in flight; the other members wait for it"
    if rollout.blocked_reason is not None:
        return f"{in_flight} in flight; starting no more: {rollout.blocked_reason}"
    if rules.wants_capacity(rollout) and not rules.next_members(rollout):
        return (
            f"{in_flight} in flight; {len(rules.unavailable(rollout))} unavailable, "
            f"of at most {rollout.allowed}"
        )
    return f"{in_flight} in flight"


def details(rollout: Rollout, commands: Sequence[str]) -> str:
    """The current details in Markdown: progress, what the rollout waits for, failed members and why."""
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
        f"Image: {code(rollout.image_id) if rollout.image_id else 'unchanged'}. Unavailable: "
        f"{len(rules.unavailable(rollout))} of at most {rollout.allowed}.",
    ]
    for title, outcome in (("failed", Outcome.FAILED), ("in flight", Outcome.IN_FLIGHT)):
        lines += _table(title, [member for member in rollout.members if member.outcome is outcome])
    if commands:
        lines += ["", "Commands:", "", *(f"- {plain(command)}" for command in commands)]
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
