"""Displayed status, boxes that recover, idle cost, and settling: I5, I9, I12."""

from collections import defaultdict
from collections.abc import Iterator

from faults.invariants.evidence import BoxTruth, Event, Evidence, StatusSample, Violation

GRACE_SECONDS = 1.0
"""Duration of a sample."""

SETTLE_MARGIN_SECONDS = 10.0
"""Events this close before a quiet period may still have effects in it."""


def online_is_true(evidence: Evidence) -> Iterator[Violation]:
    """I9: `online` is shown only while all of its conditions hold, just before or just after the sample."""
    for look in evidence.status_samples:
        if look.phase != "online":
            continue
        reasons = [_missing(look, truth, evidence.stale_after) for truth in (look.before, look.after)]
        if all(reasons):
            yield Violation(
                invariant="I9",
                workspace=look.workspace,
                at=look.at,
                what=f"online was shown of generation {look.generation}, but {reasons[0]}; then {reasons[1]}",
            )


def boxes_get_back(evidence: Evidence) -> Iterator[Violation]:
    """I5: no box of the current generation is left with a 401; and everything settles without help."""
    for it in evidence.unsettled:
        yield Violation(
            invariant="I5" if it.unauthorized else "settling",
            workspace=it.workspace,
            at=it.at,
            what=f"not settled in time: {it.seen}",
        )


def histories_replay(evidence: Evidence) -> Iterator[Violation]:
    """An operator and the next worker can replay each run."""
    for it in evidence.replayed:
        if it.failure is not None and not it.reset:
            yield Violation(
                invariant="replay",
                workspace=it.workspace,
                at=it.at,
                what=f"run {it.run_id} does not replay: {it.failure}",
            )


def health_costs_nothing(evidence: Evidence) -> Iterator[Violation]:
    """I12: a healthy workspace without requests has no workflow events."""
    events: dict[str, list[Event]] = defaultdict(list)
    for event in evidence.events:
        events[event.workspace].append(event)
    moved: dict[str, list[float]] = defaultdict(list)
    for change in evidence.changes:
        moved[change.workspace].append(change.at)
    for quiet in evidence.quiet_periods:
        for workspace in quiet.workspaces:
            seen = [it for it in events[workspace] if quiet.began < it.at < quiet.ended]
            echo = any(quiet.began - SETTLE_MARGIN_SECONDS < at < quiet.ended for at in moved[workspace])
            if seen and not echo:
                kinds = ", ".join(sorted({it.type for it in seen}))
                yield Violation(
                    invariant="I12",
                    workspace=workspace,
                    at=seen[0].at,
                    what=f"{len(seen)} events in {quiet.ended - quiet.began:.1f} quiet seconds: {kinds}",
                )


def _missing(look: StatusSample, truth: BoxTruth, stale_after: float) -> str:
    """Return the conditions of `online` that do not hold."""
    if truth.generation != look.generation:
        return f"generation {truth.generation} is current"
    if not truth.registered:
        return "its box has not registered"
    if not truth.live_tokens:
        return "it has no live token"
    if truth.heartbeat_age is None or truth.heartbeat_age > stale_after + GRACE_SECONDS:
        return f"its last heartbeat is {truth.heartbeat_age} s old"
    if truth.not_processing:
        return "its agent doesn't process"
    return "" if truth.canary_answered else "its agent has not answered a canary"
