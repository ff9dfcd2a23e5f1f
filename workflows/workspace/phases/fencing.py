"""When an instance counts as gone. Standard library only.

Judges what EC2 said over time; an empty or failed listing confirms nothing by itself.
"""

from dataclasses import replace
from datetime import datetime, timedelta

from workflows.workspace.events import FenceObserved
from workflows.workspace.state import Fence, UnconfirmedInstance

MISSING_CHECKS = 3
MISSING_FOR = timedelta(seconds=60)
"""EC2's listings are eventually consistent: one "not found" is no proof, three over a minute are."""

MIN_INSTANCE_AGE = timedelta(minutes=5)
"""The slowest listing of a new instance that was reported took minutes."""

UNCONFIRMED_AFTER = timedelta(minutes=10)
"""A termination takes a minute or two; after ten, a human should know."""

POLL_INTERVAL = timedelta(seconds=20)
"""Three looks fit into the minute that a missing instance has to stay missing."""


def update_fence(fence: Fence, seen: FenceObserved, at: datetime) -> Fence:
    """The fence after one more look: confirmed once nothing is left to be proven."""
    before = {instance.key: instance for instance in fence.unconfirmed_instances}
    unconfirmed_instances = [
        UnconfirmedInstance(key=key, launched_at=before[key].launched_at if key in before else at)
        for key in seen.alive
    ]
    for missing in seen.missing:
        known = before.get(missing.key, UnconfirmedInstance(key=missing.key, launched_at=missing.launched_at))
        unconfirmed_instances.append(
            replace(
                known,
                launched_at=missing.launched_at,
                missing_since=known.missing_since or at,
                missing_count=known.missing_count + 1,
            )
        )
    left = {instance.key for instance in unconfirmed_instances}
    return replace(
        fence,
        confirmed=not unconfirmed_instances,
        since=fence.since or at,
        unconfirmed_instances=tuple(unconfirmed_instances),
        # A declaration that came while this look was under way is for the next one.
        declared_dead=tuple(key for key in fence.declared_dead if key in left),
    )


def proven_gone(fence: Fence, at: datetime) -> tuple[str, ...]:
    """The instances that were missing often enough, for long enough, and late enough after their launch."""
    return tuple(
        instance.key
        for instance in fence.unconfirmed_instances
        if instance.missing_since is not None
        and instance.missing_count >= MISSING_CHECKS
        and at - instance.missing_since >= MISSING_FOR
        and at - instance.launched_at >= MIN_INSTANCE_AGE
    )


def is_unconfirmed(fence: Fence, at: datetime, *, after: timedelta = UNCONFIRMED_AFTER) -> bool:
    """Whether the fence has been open for so long that a human has to know, and may decide."""
    return not fence.confirmed and fence.since is not None and at - fence.since >= after
