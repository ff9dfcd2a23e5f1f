"""Delegations, from PostgreSQL's changes, the responses to sources and the targets' ledgers: I10."""

from collections.abc import Iterator

from faults.invariants.evidence import Change, Evidence, Violation

ORDER = ("queued", "delivered", "acked", "in_progress")
ENDS = ("processed", "failed", "expired", "canceled")


def each_ends_once(evidence: Evidence) -> Iterator[Violation]:
    """I10: none is lost, each ends, an end is final, and `processed` matches the target's ledger."""
    last: dict[str, Change] = {}
    for change in evidence.changes:
        if change.table != "delegations":
            continue
        delegation = str(change.row["delegation_id"])
        before, state = last.get(delegation), str(change.row["state"])
        if before is not None and before.row["state"] in ENDS and before.row["state"] != state:
            yield _violation(change, f"{delegation} had ended as {before.row['state']}, and became {state}")
        if state == "processed" and delegation not in evidence.processed.get(change.workspace, frozenset()):
            yield _violation(change, f"{delegation} is processed, but no box of its target recorded it")
        last[delegation] = change
    for promised in evidence.delegated:
        found = last.get(promised.delegation_id)
        if found is None:
            yield Violation(
                invariant="I10",
                workspace=promised.target,
                at=promised.at,
                what=f"{promised.delegation_id} was accepted, but is lost",
            )
        elif found.row["state"] not in ENDS:
            yield _violation(found, f"{promised.delegation_id} never ended: {found.row['state']}")


def _violation(change: Change, what: str) -> Violation:
    return Violation(invariant="I10", workspace=change.workspace, at=change.at, what=what)
