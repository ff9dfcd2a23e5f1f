"""The changes to the cloud, in order, and counts of them. Append-only."""

from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime

from devstack.aws.values import JSON, STATE_CHANGE, Counts, Entry, Outcome

ALIVE = frozenset({"pending", "running"})
TERMINATED = "terminated"


class Journal:
    """The journal of one endpoint. Callers hold the cloud's lock."""

    def __init__(self, entries: Sequence[Entry] = ()) -> None:
        self._entries = list(entries)

    def add(
        self,
        action: str,
        outcome: str,
        *,
        at: float,
        workspace: str | None = None,
        generation: int | None = None,
        instance_ids: Sequence[str] = (),
        code: str | None = None,
        parameters: JSON | None = None,
    ) -> None:
        """Append an entry."""
        self._entries.append(
            Entry(
                seq=len(self._entries) + 1,
                at=timestamp(at),
                action=action,
                outcome=outcome,
                workspace=workspace,
                generation=generation,
                instance_ids=tuple(instance_ids),
                code=code,
                parameters=parameters or {},
            )
        )

    def entries(self, *, workspace: str | None = None, since: int = 0) -> list[Entry]:
        """Return the entries after `since`, of one workspace or of all."""
        return [entry for entry in self._entries[since:] if workspace is None or entry.workspace == workspace]


def count(entries: Sequence[Entry]) -> Counts:
    """Return the counts of the entries."""
    changes = [entry for entry in entries if entry.action == STATE_CHANGE]
    alive: dict[str, str | None] = {}
    unterminated: dict[str, str | None] = {}
    max_alive = max_unterminated = 0
    for change in changes:
        instance_id = change.instance_ids[0]
        _enter(alive, instance_id, change, present=change.outcome in ALIVE)
        _enter(unterminated, instance_id, change, present=change.outcome != TERMINATED)
        max_alive = max(max_alive, *Counter(alive.values()).values(), 0)
        max_unterminated = max(max_unterminated, *Counter(unterminated.values()).values(), 0)
    return Counts(
        launches=sum(len(entry.instance_ids) for entry in entries if entry.outcome == Outcome.LAUNCHED),
        terminations=sum(change.outcome == "shutting-down" for change in changes),
        dns_changes=_done(entries, "ChangeResourceRecordSets"),
        snapshots=_done(entries, "CreateSnapshot"),
        alive_now=len(alive),
        max_alive_at_once=max_alive,
        max_unterminated_at_once=max_unterminated,
    )


def timestamp(at: float) -> str:
    """Format seconds since the epoch as ISO 8601, UTC."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds")


def _enter(present_ones: dict[str, str | None], instance_id: str, change: Entry, *, present: bool) -> None:
    if present:
        present_ones[instance_id] = change.workspace
    else:
        present_ones.pop(instance_id, None)


def _done(entries: Sequence[Entry], action: str) -> int:
    return sum(entry.action == action and entry.outcome == Outcome.DONE for entry in entries)
