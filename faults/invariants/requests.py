"""Outcomes of requests, from PostgreSQL and the responses to senders: I2 and I3."""

from collections import Counter, defaultdict
from collections.abc import Iterator

from faults.invariants.evidence import Evidence, RecordedRequest, Violation

OPENING = ("recreate", "start")
"""Requests that open a generation when accepted."""


def each_has_one_outcome(evidence: Evidence) -> Iterator[Violation]:
    """I2: a signalled or answered request is recorded once, with the outcome that was returned."""
    recorded: dict[tuple[str, str], list[RecordedRequest]] = defaultdict(list)
    for row in evidence.recorded:
        recorded[row.workspace, row.request_id].append(row)
    for (workspace, request_id), rows in recorded.items():
        if len(rows) > 1:
            yield _violation("I2", rows[-1], f"{request_id} of {workspace} has {len(rows)} outcomes")
    for request in evidence.sent:
        found = recorded.get((request.workspace, request.request_id), [])
        outcome = f" was answered with {request.outcome}" if request.outcome else ""
        answered = f"{request.request_id}{outcome}"
        if not found:
            yield Violation(
                invariant="I2",
                workspace=request.workspace,
                at=request.at,
                what=f"{answered}, but no outcome is recorded",
            )
        elif request.outcome is not None and found[0].outcome != request.outcome:
            yield _violation("I2", found[0], f"{answered}, but {found[0].outcome} is recorded")


def one_request_opens_a_generation(evidence: Evidence) -> Iterator[Violation]:
    """I2: one accepted request opened each generation after the first."""
    opened = Counter(
        (row.workspace, row.generation)
        for row in evidence.recorded
        if row.outcome == "accepted" and row.kind in OPENING
    )
    for row in evidence.recorded:
        key = row.workspace, row.generation
        if row.outcome == "accepted" and row.kind in OPENING and opened[key] > 1:
            yield _violation("I2", row, f"{opened.pop(key)} requests opened generation {row.generation}")
    for change in evidence.changes:
        generation = change.row.get("generation")
        if change.table != "generations" or not isinstance(generation, int) or generation == 1:
            continue
        if (change.workspace, generation) not in opened and not _already_reported(
            evidence, change.workspace, generation
        ):
            yield Violation(
                invariant="I2",
                workspace=change.workspace,
                at=change.at,
                what=f"no accepted request opened generation {generation}",
            )


def late_ones_change_nothing(evidence: Evidence) -> Iterator[Violation]:
    """I3: an accepted request observed the generation that it replaced, or none."""
    for row in evidence.recorded:
        about = row.observed_generation
        if row.outcome == "accepted" and row.kind == "recreate" and about not in (None, row.generation - 1):
            yield _violation("I3", row, f"a request about generation {about} opened {row.generation}")


def _already_reported(evidence: Evidence, workspace: str, generation: int) -> bool:
    """Whether it was already reported as opened twice."""
    return any(
        row.workspace == workspace and row.generation == generation and row.outcome == "accepted"
        for row in evidence.recorded
    )


def _violation(invariant: str, row: RecordedRequest, what: str) -> Violation:
    return Violation(invariant=invariant, workspace=row.workspace, at=row.at, what=what)
