"""The workspace record as it is shown: the stored status, corrected by the age of the last heartbeat."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from ipaddress import IPv4Address, IPv6Address

from psycopg.rows import class_row
from pydantic import JsonValue

from store.db.pool import Connection
from workflows.workspace.diagnosis import Diagnosis, RegistrationStatus, diagnose
from workflows.workspace.enums import ConditionStatus, ConditionType, Intent, Phase


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordView:
    """The stored record. `at` is the database's time of the read."""

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
    """From the agent card."""
    last_heartbeat_at: datetime | None
    """Of the shown generation. Heartbeats of older boxes do not count."""
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
    """The record; None if the workspace does not exist."""
    async with conn.cursor(row_factory=class_row(RecordView)) as cursor:
        await cursor.execute(_RECORD, [workspace_id])
        return await cursor.fetchone()


def effective_phase(record: RecordView, *, stale_after: timedelta) -> Phase:
    """The stored phase, but `online` only with fresh heartbeats and the intent to run (invariant I9)."""
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
    """Whether the box is healthy now, possibly before the workflow knows."""
    fresh = heartbeat_freshness(record, stale_after=stale_after) is ConditionStatus.TRUE
    return fresh and record.credential_lost_at is None and record.agent_unresponsive_since is None


def heartbeat_freshness(record: RecordView, *, stale_after: timedelta) -> ConditionStatus:
    """Whether heartbeats of the current box are fresh; unknown before its first heartbeat."""
    if record.current is None or record.last_heartbeat_at is None:
        return ConditionStatus.UNKNOWN
    fresh = record.at - record.last_heartbeat_at <= stale_after
    return ConditionStatus.TRUE if fresh else ConditionStatus.FALSE


def needs_diagnosis(record: RecordView) -> bool:
    """Whether there is a box without any heartbeat, whose register calls may explain why."""
    return record.current is not None and record.instance_id is not None and record.last_heartbeat_at is None


def effective_conditions(
    record: RecordView, *, stale_after: timedelta, registration: RegistrationStatus | None = None
) -> list[dict[str, JsonValue]]:
    """The stored conditions with `HeartbeatFresh` as of now, and `Registered` as `registration` explains."""
    now = {ConditionType.HEARTBEAT_FRESH: _heartbeat_fresh(record, stale_after)}
    if registration is not None and (why := diagnose(registration)).is_conclusive:
        now[ConditionType.REGISTERED] = _registered(record, registration, why)
    return [*(one for one in record.conditions if one.get("type") not in now), *now.values()]


def _registered(record: RecordView, registration: RegistrationStatus, why: Diagnosis) -> dict[str, JsonValue]:
    since = registration.registered_at or min(
        (call.last_at for call in registration.calls), default=record.at
    )
    return {
        "type": ConditionType.REGISTERED,
        "status": ConditionStatus.FALSE if registration.registered_at is None else ConditionStatus.TRUE,
        "reason": why.reason,
        "message": why.message,
        "generation": record.newest,
        "last_transition_at": since.isoformat(),
    }


def _heartbeat_fresh(record: RecordView, stale_after: timedelta) -> dict[str, JsonValue]:
    status = heartbeat_freshness(record, stale_after=stale_after)
    since = record.opened_at or record.at
    reason, message = "NoHeartbeatYet", "no authenticated heartbeat has arrived yet"
    if record.last_heartbeat_at is not None:
        if status is ConditionStatus.TRUE:
            since = record.alive_since or record.last_heartbeat_at
            reason, message = "Fresh", "heartbeats arrive with a valid token"
        elif status is ConditionStatus.FALSE:
            since = record.stale_since or record.last_heartbeat_at + stale_after
            reason, message = "Stale", f"no heartbeat since {record.last_heartbeat_at:%H:%M:%S} UTC"
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
