"""The record of a workspace as it is shown: what was stored, corrected by the age of the last beat.

Writes nothing.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from ipaddress import IPv4Address, IPv6Address

from psycopg.rows import class_row
from pydantic import JsonValue

from store.db.pool import Connection
from workflows.workspace.diagnosis import Diagnosis, diagnose
from workflows.workspace.state import ConditionStatus, ConditionType, Intent, Phase, RegistrationStatus


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordView:
    """The record as it stands, and what the database's clock said when it was read."""

    workspace_id: str
    intent: str
    deleted: bool
    phase: str
    newest: int
    current: int | None
    instance_id: str | None
    private_ip: IPv4Address | IPv6Address | None
    dns_name: str | None
    url: str | None
    name: str | None
    """Of the agent card."""
    last_heartbeat_at: datetime | None
    """Of the generation that is shown; a beat of an older box says nothing about this one."""
    alive_since: datetime | None
    stale_since: datetime | None
    recreates: int
    last_error: dict[str, JsonValue] | None
    conditions: list[dict[str, JsonValue]]
    credential_lost_at: datetime | None
    agent_unresponsive_since: datetime | None
    opened_at: datetime | None
    last_processed_at: datetime | None
    at: datetime


_RECORD = """
SELECT w.workspace_id, w.intent, w.deleted_at IS NOT NULL AS deleted, w.phase, w.generation AS newest,
       CASE WHEN g.superseded_at IS NULL THEN g.generation END AS current,
       g.instance_id, g.private_ip, w.dns_name, g.url, g.opened_at, g.last_processed_at,
       CASE WHEN jsonb_typeof(g.agent_card -> 'name') = 'string' THEN g.agent_card ->> 'name' END AS name,
       b.last_heartbeat_at, b.alive_since, b.stale_since, b.credential_lost_at, g.agent_unresponsive_since,
       (SELECT count(*) FROM requests r
        WHERE r.workspace_id = w.workspace_id AND r.kind = 'recreate' AND r.outcome = 'accepted'
          AND r.decided_at > now() - interval '24 hours') AS recreates,
       w.last_error, w.conditions, now() AS at
FROM workspaces w
LEFT JOIN generations g ON g.workspace_id = w.workspace_id AND g.generation = w.generation
LEFT JOIN heartbeats b ON b.workspace_id = w.workspace_id AND b.generation = w.generation
WHERE w.workspace_id = %s
"""


async def read_record(conn: Connection, workspace_id: str) -> RecordView | None:
    """The record, or None if there is no such workspace."""
    async with conn.cursor(row_factory=class_row(RecordView)) as cursor:
        await cursor.execute(_RECORD, [workspace_id])
        return await cursor.fetchone()


def effective_phase(record: RecordView, *, stale_after: timedelta) -> Phase:
    """The stored phase; `online` only while beats say so, and never against the intent (invariant I9)."""
    phase = Phase(record.phase)
    if record.deleted:
        return Phase.DELETED
    if record.intent == Intent.DELETE:
        return Phase.DELETED if phase is Phase.DELETED else Phase.DELETING
    if record.intent == Intent.STOP:
        return Phase.STOPPED if phase is Phase.STOPPED else Phase.STOPPING
    if phase is Phase.ONLINE and not _is_healthy(record, stale_after):
        return Phase.DEGRADED
    return phase


def _is_healthy(record: RecordView, stale_after: timedelta) -> bool:
    """Whether nothing speaks against `online`, perhaps before the lifecycle has heard of it."""
    fresh = heartbeat_freshness(record, stale_after=stale_after) is ConditionStatus.TRUE
    return fresh and record.credential_lost_at is None and record.agent_unresponsive_since is None


def heartbeat_freshness(record: RecordView, *, stale_after: timedelta) -> ConditionStatus:
    """Whether the current box beats; unknown until it did for the first time."""
    if record.current is None or record.last_heartbeat_at is None:
        return ConditionStatus.UNKNOWN
    fresh = record.at - record.last_heartbeat_at <= stale_after
    return ConditionStatus.TRUE if fresh else ConditionStatus.FALSE


def needs_diagnosis(record: RecordView) -> bool:
    """Whether there is a box that has never beaten: what it did at the register API says why."""
    return record.current is not None and record.instance_id is not None and record.last_heartbeat_at is None


def effective_conditions(
    record: RecordView, *, stale_after: timedelta, seen: RegistrationStatus | None = None
) -> list[dict[str, JsonValue]]:
    """The stored conditions, with `HeartbeatFresh` as it is now, and `Registered` as calls explain it."""
    now = {ConditionType.HEARTBEAT_FRESH: _heartbeat_fresh(record, stale_after)}
    if seen is not None and (why := diagnose(seen)).is_conclusive:
        now[ConditionType.REGISTERED] = _registered(record, seen, why)
    return [*(one for one in record.conditions if one.get("type") not in now), *now.values()]


def _registered(record: RecordView, seen: RegistrationStatus, why: Diagnosis) -> dict[str, JsonValue]:
    since = seen.registered_at or min((call.last_at for call in seen.calls), default=record.at)
    return {
        "type": ConditionType.REGISTERED,
        "status": ConditionStatus.FALSE if seen.registered_at is None else ConditionStatus.TRUE,
        "reason": why.reason,
        "message": why.message,
        "generation": record.newest,
        "last_transition_at": since.isoformat(),
    }


def _heartbeat_fresh(record: RecordView, stale_after: timedelta) -> dict[str, JsonValue]:
    status = heartbeat_freshness(record, stale_after=stale_after)
    since = record.opened_at or record.at
    reason, message = "NoBeatYet", "no authenticated beat was taken in yet"
    if record.last_heartbeat_at is not None:
        if status is ConditionStatus.TRUE:
            since = record.alive_since or record.last_heartbeat_at
            reason, message = "Beating", "beats come with a live token"
        elif status is ConditionStatus.FALSE:
            since = record.stale_since or record.last_heartbeat_at + stale_after
            reason, message = "Silent", f"no beat since {record.last_heartbeat_at:%H:%M:%S} UTC"
        else:
            reason, message = "NoBox", "the generation was closed"
    return {
        "type": ConditionType.HEARTBEAT_FRESH,
        "status": status,
        "reason": reason,
        "message": message,
        "generation": record.newest,
        "last_transition_at": since.isoformat(),
    }
