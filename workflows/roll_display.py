"""What people see of a fleet roll: its progress, its report, the words of the UI.

Says what the roll is; decides nothing.
"""

from collections.abc import Sequence
from datetime import datetime

from workflows import roll as rules
from workflows.markdown import code, plain, table
from workflows.roll import Member, Outcome, Roll, RollState
from workflows.roll_messages import RollMember, RollProgress

MOST_LISTED = 30
"""Of each kind in the current details, which are no place for thousands of lines."""


def progress(
    roll: Roll | None, *, roll_id: str, began_at: datetime | None, ended_at: datetime | None
) -> RollProgress:
    """The answer of the `progress` query; once it has ended, the report."""
    if roll is None:
        roll = Roll(members=(), allowed=0, max_failures=0)
        return _progress(roll, None, "the plan is being made", roll_id, began_at, ended_at)
    return _progress(roll, roll.state, waiting_for(roll), roll_id, began_at, ended_at)


def _progress(
    roll: Roll,
    state: RollState | None,
    why: str,
    roll_id: str,
    began_at: datetime | None,
    ended_at: datetime | None,
) -> RollProgress:
    return RollProgress(
        roll_id=roll_id,
        state=state,
        over=state is not None and rules.is_over(roll),
        why=why,
        image_id=roll.image_id,
        allowed=roll.allowed,
        unavailable=len(rules.unavailable(roll)),
        counts={outcome: number for outcome in Outcome if (number := rules.count(roll, outcome))},
        members=tuple(
            RollMember(
                workspace_id=member.workspace_id,
                outcome=member.outcome,
                generation=member.generation,
                detail=member.detail,
            )
            for member in roll.members
        ),
        began_at=began_at,
        ended_at=ended_at,
    )


def waiting_for(roll: Roll) -> str:
    """What the roll does or waits for, in one sentence."""
    on_the_way = len(rules.flying(roll))
    if rules.is_over(roll):
        untouched = rules.count(roll, Outcome.WAITING)
        return f"it has ended: {roll.why}; {untouched} are untouched" if untouched else "it has ended"
    match roll.state:
        case RollState.PLANNED:
            return (
                f"proceed begins it: {len(roll.members)} workspaces, {roll.members[0].workspace_id} alone "
                f"first, then at most {roll.allowed} unavailable at once"
            )
        case RollState.PAUSED:
            rest = f"; {on_the_way} are on the way" if on_the_way else ""
            return f"paused: {roll.why}{rest}. resume goes on, retry_failed adds the failed, abort ends it"
        case RollState.ABORTED:
            return f"aborted: {roll.why}; {on_the_way} are on the way"
        case RollState.ROLLING:
            return _rolling(roll, on_the_way)


def _rolling(roll: Roll, on_the_way: int) -> str:
    moving = f"{on_the_way} are on the way" if on_the_way else "none is on the way"
    if not roll.proven and on_the_way:
        return "the canary is on the way; the others wait for it"
    if roll.held is not None:
        return f"{moving}; nothing new begins: {roll.held}"
    if rules.wants_room(roll) and not rules.next_turns(roll):
        return f"{moving}; {len(rules.unavailable(roll))} are unavailable, {roll.allowed} may be"
    return moving


def details(roll: Roll, orders: Sequence[str]) -> str:
    """The current details in Markdown: how far it is, what it waits for, who failed and why."""
    counts = ", ".join(
        f"{number} {outcome.replace('_', ' ')}"
        for outcome in Outcome
        if (number := rules.count(roll, outcome))
    )
    lines = [
        f"**{roll.state}** — {len(roll.members)} workspaces: {counts}",
        "",
        f"**Now:** {plain(waiting_for(roll))}.",
        "",
        f"Image: {code(roll.image_id) if roll.image_id else 'as each workspace has it'}. Unavailable: "
        f"{len(rules.unavailable(roll))}, at most {roll.allowed} by this roll.",
    ]
    for title, outcome in (("failed", Outcome.FAILED), ("on the way", Outcome.IN_FLIGHT)):
        lines += _table(title, [member for member in roll.members if member.outcome is outcome])
    if orders:
        lines += ["", "Orders:", "", *(f"- {plain(order)}" for order in orders)]
    return "\n".join(lines)


def _table(title: str, members: Sequence[Member]) -> list[str]:
    more = len(members) - MOST_LISTED
    rows = [
        (member.workspace_id, str(member.generation or "—"), plain(member.detail))
        for member in members[:MOST_LISTED]
    ]
    return table(
        (title, "generation", "why"), [*rows, *([(f"… and {more} more", "", "")] if more > 0 else [])]
    )
