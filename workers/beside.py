"""Laying beside a story what the database has of its time: the audit trail, and delegations.

Reads in a transaction that cannot write; a database that cannot be asked is said, and is no failure.
"""

from collections.abc import Iterable, Iterator
from datetime import timedelta

import psycopg

from register_api.answers import Code
from store import around
from store.audit import Row
from store.pool import StoreUnavailable, connection, open_pool
from workers.story.model import Entry, Lane, Story, Tone
from workers.story.telling import with_beside

MARGIN = timedelta(seconds=5)
"""Before and after the history: calls that led to its first fact, and clocks that differ."""


async def laid_beside(story: Story, database_url: str) -> Story:
    """The story with lines from the database, or with the reason why there are none."""
    begin, end = story.begin - MARGIN, story.end + MARGIN
    try:
        async with (
            open_pool(database_url, minimum=1, maximum=1, application_name="onebox-replay") as pool,
            connection(pool) as conn,
            conn.transaction(),
        ):
            await conn.execute("SET TRANSACTION READ ONLY")
            rows = await around.audit(conn, story.workspace_id, begin=begin, end=end)
            work = await around.handed(conn, story.workspace_id, begin=begin, end=end)
    except StoreUnavailable as error:
        return with_beside(story, [], f"The database cannot be asked ({error}): its trail is not shown.")
    except psycopg.Error as error:
        kind = type(error).__name__
        return with_beside(story, [], f"The database has no such trail ({kind}): nothing of it is shown.")
    told = [*_calls(rows), *(entry for one in work for entry in _work(one, story))]
    cut = " More than that is left out." if around.MOST in (len(rows), len(work)) else ""
    return with_beside(
        story,
        told,
        f"From the database: {_number(len(rows), 'row')} of the register API's trail, "
        f"{_number(len(work), 'delegation')}.{cut}",
    )


def _number(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _calls(rows: Iterable[Row]) -> Iterator[Entry]:
    for row in rows:
        refused = row.alert or row.code in set(Code)
        where = "its box" if row.from_box else f"another address, {row.source}"
        more = f", and {row.repeats} more like it before" if row.repeats else ""
        token = f", token {row.token_prefix}…" if row.token_prefix else ""
        yield Entry(
            at=row.at,
            lane=Lane.AUDIT,
            text=f"{row.call} from {where}: {row.code} ({row.verdict}, generation {row.generation} current"
            f"{token}){more}",
            tone=Tone.BAD if refused else Tone.GOOD,
            details=(
                ("request ID", row.request_id),
                ("bearer", row.bearer),
                ("audit row", str(row.audit_id)),
            ),
        )


def _work(one: around.Handed, story: Story) -> Iterator[Entry]:
    other = f"to {one.target_id}" if one.source_id == story.workspace_id else f"from {one.source_id}"
    name = f"{one.type} {one.delegation_id} {other}"
    yield Entry(at=one.created_at, lane=Lane.WORK, text=f"{name}: handed over")
    if one.delivered_at is not None:
        generation = one.target_generation
        told = f"{name}: delivered to generation {generation}, attempt {one.attempt}; that is not processed"
        yield Entry(at=one.delivered_at, lane=Lane.WORK, text=told)
    if one.ended_at is not None:
        why = f" ({one.error_code})" if one.error_code else ""
        tone = Tone.GOOD if one.state == "processed" else Tone.BAD
        yield Entry(at=one.ended_at, lane=Lane.WORK, text=f"{name}: {one.state.upper()}{why}", tone=tone)
