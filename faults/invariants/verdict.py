"""Runs every check and adds a timeline to each violation."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime

from faults.invariants import boxes, credentials, delegations, requests, status
from faults.invariants.evidence import Evidence, Violation

INVARIANT_CHECKS: tuple[Callable[[Evidence], Iterator[Violation]], ...] = (
    boxes.one_alive,
    boxes.one_launch,
    boxes.names_change_forwards,
    requests.each_has_one_outcome,
    requests.one_request_opens_a_generation,
    requests.late_ones_change_nothing,
    credentials.one_generation_has_tokens,
    credentials.the_superseded_get_nothing,
    credentials.unknown_callers_get_nothing,
    credentials.secrets_stay_secret,
    status.online_is_true,
    status.boxes_get_back,
    status.histories_replay,
    status.health_costs_nothing,
    delegations.each_ends_once,
)

CONTEXT_SECONDS = (30.0, 5.0)
"""Seconds shown before and after the violation."""


def find_violations(evidence: Evidence) -> list[Violation]:
    """Return all violations, ordered by time, with the events around each."""
    found = [violation for judge in INVARIANT_CHECKS for violation in judge(evidence)]
    found.sort(key=lambda violation: violation.at)
    return [replace(each, timeline=tuple(timeline(evidence, each))) for each in found]


def timeline(evidence: Evidence, violation: Violation) -> Iterator[str]:
    """Return the events of the workspace around that time, one per line."""
    before, after = CONTEXT_SECONDS
    if not violation.at:
        return
    lines = [
        line
        for line in _statements(evidence, violation.workspace)
        if -before <= line[0] - violation.at <= after
    ]
    for at, text in sorted(lines):
        yield f"{datetime.fromtimestamp(at, UTC):%H:%M:%S.%f} {text}"


def _statements(evidence: Evidence, workspace: str) -> Iterator[tuple[float, str]]:
    for deed in evidence.aws_calls:
        if deed.workspace == workspace:
            names = " ".join(deed.instances)
            yield deed.at, f"AWS: {deed.action} {deed.outcome} {deed.code or ''} {names} g{deed.generation}"
    for change in evidence.changes:
        if change.workspace == workspace:
            yield change.at, f"{change.table}: {_shorten(change.table, change.row)}"
    for row in evidence.recorded:
        if row.workspace == workspace:
            about = f"about {row.observed_generation}" if row.observed_generation is not None else ""
            yield (
                row.at,
                f"request: {row.kind} of {row.requested_by} {about}: {row.outcome} g{row.generation}",
            )
    for entry in evidence.audited:
        if entry.workspace == workspace:
            yield entry.at, f"API: {entry.call} by {entry.verdict} box of g{entry.generation}: {entry.code}"
    for event in evidence.events:
        if event.workspace == workspace:
            yield event.at, f"history: {event.type}"


_SHOWN = {
    "workspaces": ("phase", "intent", "generation"),
    "generations": ("generation", "instance_id", "registered_at", "superseded_at"),
    "tokens": ("generation", "state", "prefix"),
    "delegations": ("delegation_id", "state", "attempts", "error_code"),
    "workspace_outbox": ("kind", "generation", "detail"),
}


def _shorten(table: str, row: object) -> str:
    members = row if isinstance(row, dict) else {}
    return " ".join(
        f"{name}={members[name]}" for name in _SHOWN.get(table, ()) if members.get(name) is not None
    )
