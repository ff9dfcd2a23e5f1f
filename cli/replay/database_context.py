"""Adds entries from the database to a timeline: calls in the audit log, and delegations.

Reads in a read-only transaction. If the database is unavailable, the timeline says so.
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
"""Read this long before and after the history, for clock differences and the calls before its first event."""


async def with_database_context(timeline: Timeline, database_url: str) -> Timeline:
    """The timeline with entries from the database, or with a note why there are nit."""
    begin, end = timeline.begin - MARGIN, timeline.end + MARGIN
    try:
        async with (
            open_pool(database_url, minimum=1, maximum=1, application_name="onebox-replay") as pool,
            connection(pool) as conn,
            conn.transaction(),
        ):
            await conn.execute("SET TRANSACTION READ ONLY")
            rows = await history_queries.audit_entries(conn, timeline.workspace_id, begin=begin, end=end)
            delegations = await history_queries.delegations(conn, timeline.workspace_id, begin=begin, end=end)
    except StoreUnavailable as error:
        return with_database_entries(
            timeline, [], f"The database is unavailable ({error}): its audit log is not shown."
        )
    except psycopg.Error as error:
        kind = type(error).__name__
        return with_database_entries(
            timeline, [], f"The database has no audit log ({kind}): it is not shown."
        )
    entries = [
        *_audit_entries(rows),
        *(entry for it in delegations for entry in _delegation_entries(it, timeline)),
    ]
    cut = " Further rows are left out." if history_queries.ROW_LIMIT in (len(rows), len(delegations)) else ""
    return with_database_entries(
        timeline,
        entries,
        f"From the database: {_count(len(rows), 'row')} of the audit log, "
        f"{_count(len(delegations), 'delegation')}.{cut}",
    )


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _audit_entries(rows: Iterable[AuditRow]) -> Iterator[Entry]:
    for row in rows:
        refused = row.needs_attention or row.code in set(ErrorCode)
        where = "its box" if row.from_box else f"another address, {row.source}"
        more = f", repeated {row.repeats} times" if row.repeats else ""
        token = f", token {row.token_prefix}…" if row.token_prefix else ""
        yield Entry(
            at=row.at,
            lane=Lane.AUDIT,
            text=f"{row.operation} from {where}: {row.code} ({row.identity}, generation {row.generation}"
            f" current{token}){more}",
            tone=Tone.BAD if refused else Tone.GOOD,
            details=(
                ("request ID", row.request_id),
                ("credential", row.credential_kind),
                ("audit row", str(row.audit_id)),
            ),
        )


def _delegation_entries(it: history_queries.DelegationSummary, timeline: Timeline) -> Iterator[Entry]:
    other = f"to {it.target_id}" if it.source_id == timeline.workspace_id else f"from {it.source_id}"
    name = f"{it.type} {it.delegation_id} {other}"
    yield Entry(at=it.created_at, lane=Lane.WORK, text=f"{name}: created")
    if it.delivered_at is not None:
        generation = it.target_generation
        text = f"{name}: delivered to generation {generation}, attempt {it.attempts}; not processed yet"
        yield Entry(at=it.delivered_at, lane=Lane.WORK, text=text)
    if it.ended_at is not None:
        why = f" ({it.error_code})" if it.error_code else ""
        tone = Tone.GOOD if it.state == "processed" else Tone.BAD
        yield Entry(at=it.ended_at, lane=Lane.WORK, text=f"{name}: {it.state.upper()}{why}", tone=tone)
