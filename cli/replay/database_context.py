"""Laying beside a story what the database has of its time: the audit trail, and delegations.

Reads in a transaction that cannot write; a database that cannot be asked is said, and is no failure.
"""

from collections.abc import Iterable, Iterator
from datetime import timedelta

import psycopg

from cli.replay.timeline.build import with_database_entries
from cli.replay.timeline.model import Entry, Lane, Timeline, Tone
from register_api.http.error_codes import ErrorCode
from store.db.pool import StoreUnavailable, connection, open_pool
from store.registration.audit import AuditRow
from store.workspace import history_queries

MARGIN = timedelta(seconds=5)
"""Before and after the history: calls that led to its first fact, and clocks that differ."""


async def with_database_context(timeline: Timeline, database_url: str) -> Timeline:
    """The story with lines from the database, or with the reason why there are none."""
    begin, end = timeline.begin - MARGIN, timeline.end + MARGIN
    try:
        async with (
            open_pool(database_url, minimum=1, maximum=1, application_name="onebox-replay") as pool,
            connection(pool) as conn,
            conn.transaction(),
        ):
            await conn.execute("SET TRANSACTION READ ONLY")
            rows = await history_queries.audit_entries(conn, timeline.workspace_id, begin=begin, end=end)
            work = await history_queries.delegations(conn, timeline.workspace_id, begin=begin, end=end)
    except StoreUnavailable as error:
        return with_database_entries(
            timeline, [], f"The database cannot be asked ({error}): its trail is not shown."
        )
    except psycopg.Error as error:
        kind = type(error).__name__
        return with_database_entries(
            timeline, [], f"The database has no such trail ({kind}): nothing of it is shown."
        )
    told = [*_audit_entries(rows), *(entry for one in work for entry in _delegation_entries(one, timeline))]
    cut = " More than that is left out." if history_queries.ROW_LIMIT in (len(rows), len(work)) else ""
    return with_database_entries(
        timeline,
        told,
        f"From the database: {_count(len(rows), 'row')} of the register API's trail, "
        f"{_count(len(work), 'delegation')}.{cut}",
    )


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _audit_entries(rows: Iterable[AuditRow]) -> Iterator[Entry]:
    for row in rows:
        refused = row.needs_attention or row.code in set(ErrorCode)
        where = "its box" if row.from_box else f"another address, {row.source}"
        more = f", and {row.repeats} more like it before" if row.repeats else ""
        token = f", token {row.token_prefix}…" if row.token_prefix else ""
        yield Entry(
            at=row.at,
            lane=Lane.AUDIT,
            text=f"{row.operation} from {where}: {row.code} ({row.identity}, generation {row.generation}"
            f" current{token}){more}",
            tone=Tone.BAD if refused else Tone.GOOD,
            details=(
                ("request ID", row.request_id),
                ("bearer", row.credential_kind),
                ("audit row", str(row.audit_id)),
            ),
        )


def _delegation_entries(one: history_queries.DelegationSummary, timeline: Timeline) -> Iterator[Entry]:
    other = f"to {one.target_id}" if one.source_id == timeline.workspace_id else f"from {one.source_id}"
    name = f"{one.type} {one.delegation_id} {other}"
    yield Entry(at=one.created_at, lane=Lane.WORK, text=f"{name}: handed over")
    if one.delivered_at is not None:
        generation = one.target_generation
        told = f"{name}: delivered to generation {generation}, attempt {one.attempts}; that is not processed"
        yield Entry(at=one.delivered_at, lane=Lane.WORK, text=told)
    if one.ended_at is not None:
        why = f" ({one.error_code})" if one.error_code else ""
        tone = Tone.GOOD if one.state == "processed" else Tone.BAD
        yield Entry(at=one.ended_at, lane=Lane.WORK, text=f"{name}: {one.state.upper()}{why}", tone=tone)
