"""When an instance counts as gone. Standard library only.

Judges what EC2 said over time; an empty or failed listing confirms nothing by itself.
"""

from dataclasses import replace
from datetime import datetime, timedelta

from workflows.facts import FenceObserved
from workflows.state import Fence, Suspect

MISSING_TIMES = 3
MISSING_FOR = timedelta(seconds=60)
"""EC2's listings are eventually consistent: one "not found" is no proof, three over a minute are."""

NEVER_WITHIN = timedelta(minutes=5)
"""The slowest listing of a new instance that was reported took minutes."""

UNCONFIRMED_AFTER = timedelta(minutes=10)
"""A termination takes a minute or two; after ten, a human should know."""

LOOK_AGAIN_AFTER = timedelta(seconds=20)
"""Three looks fit into the minute that a missing instance has to stay missing."""


def observed(fence: Fence, seen: FenceObserved, at: datetime) -> Fence:
    """The fence after one more look: confirmed once nothing is left to be proven."""
    before = {suspect.key: suspect for suspect in fence.suspects}
    suspects = [
        Suspect(key=key, launched_at=before[key].launched_at if key in before else at) for key in seen.alive
    ]
    for missing in seen.missing:
        known = before.get(missing.key, Suspect(key=missing.key, launched_at=missing.launched_at))
        suspects.append(
            replace(
                known,
                launched_at=missing.launched_at,
                missing_since=known.missing_since or at,
                missing_count=known.missing_count + 1,
            )
        )
    left = {suspect.key for suspect in suspects}
    return replace(
        fence,
        confirmed=not suspects,
        since=fence.since or at,
        suspects=tuple(suspects),
        # A declaration that came while this look was under way is for the next one.
        declared_dead=tuple(key for key in fence.declared_dead if key in left),
    )


def proven_gone(fence: Fence, at: datetime) -> tuple[str, ...]:
    """The suspects that were missing often enough, for long enough, late enough after their launch."""
    return tuple(
        suspect.key
        for suspect in fence.suspects
        if suspect.missing_since is not None
        and suspect.missing_count >= MISSING_TIMES
        and at - suspect.missing_since >= MISSING_FOR
        and at - suspect.launched_at >= NEVER_WITHIN
    )


def is_unconfirmed(fence: Fence, at: datetime, *, after: timedelta = UNCONFIRMED_AFTER) -> bool:
    """Whether the fence has been open for so long that a human has to know, and may decide."""
    return not fence.confirmed and fence.since is not None and at - fence.since >= after
