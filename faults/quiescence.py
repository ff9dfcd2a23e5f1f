"""Whether everything is settled according to PostgreSQL: online, stopped, deleted, or held back."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

import psycopg
from psycopg.rows import dict_row

FRESH_SECONDS = 3.0
"""Six heartbeat intervals of a run's box."""

NEEDS_OPERATOR = frozenset({"BudgetSpent", "FailedAlike", "Spacing"})
"""Reasons of the condition `RecreateAllowed` that need an operator; such a workspace counts as settled."""


class RestState(StrEnum):
    """State of a workspace."""

    ONLINE = "online"
    STOPPED = "stopped"
    DELETED = "deleted"
    HELD_BACK = "held_back"
    """Its budget of automatic recreates is exhausted, or similar; it waits for an operator."""
    MOVING = "moving"


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkspaceState:
    """A workspace as last seen."""

    workspace: str
    rest: RestState
    generation: int
    detail: str
    """Explains why it did not settle."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Quiescence:
    """All workspaces, and the pending work."""

    seen: tuple[WorkspaceState, ...]
    pending: tuple[str, ...]
    """Unsent events, open delegations, requests without an outcome, workspaces without a row."""

    @property
    def settled(self) -> bool:
        """Whether nothing is pending."""
        return not self.pending and all(it.rest is not RestState.MOVING for it in self.seen)

    def in_state(self, rest: RestState) -> list[str]:
        """Return the workspaces in that state."""
        return [it.workspace for it in self.seen if it.rest is rest]


def read_quiescence(database_url: str, workspaces: list[str], requests: set[tuple[str, str]]) -> Quiescence:
    """Read the state of all workspaces. Raises psycopg's errors."""
    with psycopg.connect(database_url, row_factory=dict_row, autocommit=True, connect_timeout=5) as database:
        rows = database.execute(_WORKSPACES, [workspaces]).fetchall()
        [counts] = database.execute(_PENDING).fetchall()
        recorded = database.execute("SELECT workspace_id, request_id FROM requests").fetchall()
    seen = tuple(map(_seen, rows))
    known = {(str(row["workspace_id"]), str(row["request_id"])) for row in recorded}
    pending = [f"{name}: {number}" for name, number in counts.items() if number]
    pending += [f"no outcome of {request} of {workspace}" for workspace, request in requests - known]
    pending += [f"{name} is not there yet" for name in set(workspaces) - {it.workspace for it in seen}]
    return Quiescence(seen=seen, pending=tuple(pending))


def _seen(row: Mapping[str, object]) -> WorkspaceState:
    phase, intent, reason = str(row["phase"]), str(row["intent"]), str(row["recreate_allowed"])
    age = row["heartbeat_age"]
    fresh = age is not None and float(str(age)) < FRESH_SECONDS and row["stale_since"] is None
    match intent, phase:
        case "delete", "deleted":
            rest = RestState.DELETED
        case "stop", "stopped":
            rest = RestState.STOPPED
        case "run", "online" if fresh and row["live_tokens"] == 1:
            rest = RestState.ONLINE
        case "run", "failed" | "degraded" if reason in NEEDS_OPERATOR:
            rest = RestState.HELD_BACK
        case _:
            rest = RestState.MOVING
    detail = (
        f"intent {intent}, {phase}, generation {row['generation']}, last heartbeat {age} s ago,"
        f" {row['live_tokens']} live tokens, RecreateAllowed {reason}, last error {row['error']}"
    )
    generation = int(str(row["generation"]))
    return WorkspaceState(workspace=str(row["workspace_id"]), rest=rest, generation=generation, detail=detail)


_WORKSPACES = """
SELECT w.workspace_id, w.intent, w.phase, w.generation, b.stale_since,
       round(extract(epoch FROM now() - b.last_heartbeat_at), 1) AS heartbeat_age,
       w.last_error ->> 'code' AS error,
       (SELECT count(*) FROM tokens t WHERE t.workspace_id = w.workspace_id AND t.state <> 'revoked')
           AS live_tokens,
       (SELECT c ->> 'reason' FROM jsonb_array_elements(w.conditions) c
        WHERE c ->> 'type' = 'RecreateAllowed') AS recreate_allowed
FROM workspaces w LEFT JOIN heartbeats b ON b.workspace_id = w.workspace_id AND b.generation = w.generation
WHERE w.workspace_id = ANY(%s) ORDER BY w.workspace_id
"""

# Work for a stopped workspace or for an operator's decision is not pending.
_PENDING = """
SELECT (SELECT count(*) FROM workspace_outbox) AS workspace_events,
       (SELECT count(*) FROM delegation_outbox) AS delegation_events,
       (SELECT count(*) FROM delegations d JOIN workspaces w ON w.workspace_id = d.target_id
        WHERE d.ended_at IS NULL AND NOT d.dead_lettered AND d.type <> 'canary' AND w.phase = 'online')
           AS delegations
"""
