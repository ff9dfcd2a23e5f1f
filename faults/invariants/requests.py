"""What became of requests, by PostgreSQL and by their senders' word: I2 and I3."""

from collections import Counter, defaultdict
from collections.abc import Iterator

from faults.invariants.evidence import Evidence, RecordedRequest, Violation

OPENING = ("recreate", "start")
"""What opens a generation when it is accepted."""


def each_has_one_outcome(evidence: Evidence) -> Iterator[Violation]:
    """I2: what was signalled or answered is recorded, once, and as it was told."""
    recorded: dict[tuple[str, str], list[RecordedRequest]] = defaultdict(list)
    for row in evidence.recorded:
        recorded[row.workspace, row.request_id].append(row)
    for (workspace, request_id), rows in recorded.items():
        if len(rows) > 1:
            yield _violation("I2", rows[-1], f"{request_id} of {workspace} has {len(rows)} outcomes")
    for asked in evidence.asked:
        found = recorded.get((asked.workspace, asked.request_id), [])
        told = f"{asked.request_id} was told {asked.outcome}" if asked.outcome else asked.request_id
        if not found:
            yield Violation(
                invariant="I2",
                workspace=asked.workspace,
                at=asked.at,
                what=f"{told}, and there is no outcome on record",
            )
        elif asked.outcome is not None and found[0].outcome != asked.outcome:
            yield _violation("I2", found[0], f"{told}, and {found[0].outcome} is recorded")


def one_request_opens_a_generation(evidence: Evidence) -> Iterator[Violation]:
    """I2: each generation after the first was opened by one accepted request."""
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
    """I3: what was accepted was about the generation that it replaced, or about none in particular."""
    for row in evidence.recorded:
        about = row.observed_generation
        if row.outcome == "accepted" and row.kind == "recreate" and about not in (None, row.generation - 1):
            yield _violation("I3", row, f"a request about generation {about} opened {row.generation}")


def _already_reported(evidence: Evidence, workspace: str, generation: int) -> bool:
    """Whether it was complained of already, as opened twice."""
    return any(
        row.workspace == workspace and row.generation == generation and row.outcome == "accepted"
        for row in evidence.recorded
    )


def _violation(invariant: str, row: RecordedRequest, what: str) -> Violation:
    return Violation(invariant=invariant, workspace=row.workspace, at=row.at, what=what)
