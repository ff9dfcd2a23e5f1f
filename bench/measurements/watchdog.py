"""The watchdog's query in large tables: its duration and its plan."""

import asyncio
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import LiteralString, cast

import psycopg
from psycopg.abc import Params
from psycopg.rows import TupleRow
from typing_extensions import override

from bench.parts.fixtures import seed_many
from bench.parts.results import Goal, Line, Profile, Table
from bench.parts.size import Size
from devstack.postgres import Postgres
from devstack.processes import free_port
from store.db.migrate import migrate
from store.fleet import watchdog_queries
from store.fleet.watchdog_queries import WatchdogThresholds

SILENT_SHARE = 0.001
"""Share of stale rows during trouble: 1,000 of a million, more than may be recreated at once."""

LIMIT = 20
"""Maximum of requests per round."""

GOALS_MS: Mapping[int, float] = {10_000: 50.0, 1_000_000: 500.0}
"""By number of rows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QueryTiming:
    """The query among this many rows."""

    rows: int
    silent: int
    median_ms: float
    worst_ms: float
    planning_ms: float
    executing_ms: float
    """PostgreSQL's own report of one more execution."""
    scanned: Mapping[str, int]
    """Tables that the plan scans sequentially, with their rows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchdogResult:
    """The values for the result."""

    lines: tuple[Line, ...]
    goals: tuple[Goal, ...]
    table: Table
    profile: Profile


class _RecordingCursor(psycopg.AsyncCursor[TupleRow]):
    """A cursor that keeps its last query, so that the same query can be explained."""

    last_query: tuple[str, Params | None] = ("", None)

    @override
    async def execute(  # type: ignore[override] # the store asks in words only
        self, query: LiteralString, params: Params | None = None, *, prepare: bool | None = None
    ) -> "_RecordingCursor":
        _RecordingCursor.last_query = query, params
        await super().execute(query, params, prepare=prepare)
        return self


def measured(size: Size) -> WatchdogResult:
    """Time the query at each number of rows, without and with stale boxes."""
    with (
        TemporaryDirectory(prefix="onebox-bench-", ignore_cleanup_errors=True) as directory,
        Postgres(Path(directory) / "postgres", port=free_port(), fsync=False) as postgres,
    ):
        asyncio.run(migrate(postgres.url))
        timed: list[QueryTiming] = []
        for before, rows in pairwise((0, *size.watched)):
            seed_many(postgres.url, first=before, end=rows)
            timed.append(asyncio.run(_timed(postgres.url, size, rows, silent=0)))
            timed.append(
                asyncio.run(_timed(postgres.url, size, rows, silent=max(1, round(rows * SILENT_SHARE))))
            )
    return _told(timed)


async def _timed(url: str, size: Size, rows: int, *, silent: int) -> QueryTiming:
    async with await psycopg.AsyncConnection.connect(
        url, autocommit=True, cursor_factory=_RecordingCursor
    ) as conn:
        await _mark_silent(conn, silent)
        times: list[float] = []
        for _ in range(size.queries):
            started = time.perf_counter()
            found = await watchdog_queries.find_due(
                conn, thresholds=WatchdogThresholds(), lifecycle="lifecycle", limit=LIMIT
            )
            times.append((time.perf_counter() - started) * 1000)
            if len(found) != min(silent, LIMIT):
                raise AssertionError(
                    f"{len(found)} found of {silent} silent ones: the query is not the one meant"
                )
        query, parameters = _RecordingCursor.last_query
        cursor = await conn.execute(f"EXPLAIN (ANALYZE, FORMAT JSON) {query}".encode(), parameters)
        [[[plan]]] = await cursor.fetchall()
        scanned = {table: await _count(conn, table) for table in sorted(set(_scanned(plan["Plan"])))}
    return QueryTiming(
        rows=rows,
        silent=silent,
        median_ms=median(times),
        worst_ms=max(times),
        planning_ms=plan["Planning Time"],
        executing_ms=plan["Execution Time"],
        scanned=scanned,
    )


async def _mark_silent(conn: psycopg.AsyncConnection[TupleRow], number: int) -> None:
    """Mark this many boxes as silent for ten minutes."""
    await conn.execute(
        "UPDATE heartbeats SET stale_since = NULL, last_heartbeat_at = now() WHERE stale_since IS NOT NULL"
    )
    await conn.execute(
        "UPDATE heartbeats SET stale_since = now() - interval '10 min', last_heartbeat_at = now() -"
        " interval '12 min'"
        " WHERE workspace_id IN (SELECT workspace_id FROM heartbeats LIMIT %s)",
        [number],
    )
    await conn.execute("VACUUM ANALYZE heartbeats")


def _scanned(plan: Mapping[str, object]) -> Iterator[str]:
    if plan["Node Type"] == "Seq Scan":
        yield str(plan["Relation Name"])
    for part in cast("list[Mapping[str, object]]", plan.get("Plans", [])):
        yield from _scanned(part)


async def _count(conn: psycopg.AsyncConnection[TupleRow], table: str) -> int:
    cursor = await conn.execute(
        psycopg.sql.SQL("SELECT count(*) FROM {}").format(psycopg.sql.Identifier(table))
    )
    row = await cursor.fetchone()
    return 0 if row is None else int(row[0])


def _told(timed: list[QueryTiming]) -> WatchdogResult:
    rows = [
        (
            f"{each.rows:,}",
            f"{each.silent:,}",
            f"{each.median_ms:.2f} ms",
            f"{each.worst_ms:.2f} ms",
            ", ".join(f"{table} ({number} rows)" for table, number in each.scanned.items()) or "none",
        )
        for each in timed
    ]
    largest = timed[-1].rows
    return WatchdogResult(
        lines=(
            Line(
                name="the watchdog's query, nothing stale",
                unit="ms",
                points=tuple((each.rows, each.median_ms) for each in timed if not each.silent),
            ),
        ),
        goals=(
            *(
                Goal(
                    text=f"the watchdog's query, {each.silent:,} of {each.rows:,} stale boxes, worst case",
                    seen=each.worst_ms,
                    relation="<",
                    limit=GOALS_MS[each.rows],
                    unit="ms",
                )
                for each in timed
                if each.silent and each.rows in GOALS_MS
            ),
            Goal(
                text=f"rows that its plan scans sequentially, at {largest:,} workspaces",
                seen=sum(sum(each.scanned.values()) for each in timed if each.rows == largest),
                relation="==",
                limit=0,
            ),
        ),
        table=Table(
            title="The watchdog's query. (PostgreSQL scans an empty table, which is the cheapest plan.)",
            head=("workspaces", "stale", "median", "worst", "tables scanned sequentially"),
            rows=tuple(rows),
        ),
        profile=_profile(max(timed, key=lambda each: each.worst_ms)),
    )


def _profile(slowest: QueryTiming) -> Profile:
    """Return the time shares of the slowest query, from PostgreSQL's report of a similar one."""
    inside = {
        "PostgreSQL plans": min(slowest.planning_ms, slowest.worst_ms),
        "PostgreSQL executes": min(slowest.executing_ms, slowest.worst_ms),
    }
    outside = max(0.0, slowest.worst_ms - sum(inside.values()))
    parts = inside | {"waiting for a processor, for pages, and for the network": outside}
    return Profile(
        of=f"the slowest query ({slowest.worst_ms:.1f} ms, among {slowest.rows:,} workspaces)",
        shares=tuple((name, 100 * spent / slowest.worst_ms) for name, spent in parts.items()),
    )
