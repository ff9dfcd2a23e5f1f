"""Entries from the database in a timeline."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta

import psycopg
import pytest

from cli.replay.database_context import with_database_context
from cli.replay.timeline.model import Lane, Timeline, Tone
from cli.replay.timeline.render_html import render
from cli.replay.timeline.timeline_rows import row_groups
from devstack.console import eventually
from devstack.postgres import Postgres
from tests.cli.replay.timeline.building import timeline_of
from tests.database import empty_database, migrated_database, server

pytestmark = pytest.mark.anyio

SECONDS = 120.0


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module", autouse=True)
def _cached_timeline() -> None:
    """Build it before a test's event loop runs: it uses one of its own."""
    timeline_of("incident")


@pytest.fixture(scope="module")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    with server(tmp_path_factory.mktemp("postgres")) as running:
        yield running


@pytest.fixture(scope="module")
def database(postgres: Postgres) -> str:
    """Rows from the time of the incident, from another time, and of another workspace."""
    url, timeline = migrated_database(postgres, "context"), timeline_of("incident")
    with psycopg.connect(url, autocommit=True) as conn:
        for workspace in ("incident", "other"):
            conn.execute("INSERT INTO workspaces (workspace_id) VALUES (%s)", [workspace])
        for workspace, at, code, alert in (
            ("incident", timeline.begin + timedelta(seconds=1), "minted", False),
            ("incident", timeline.begin + timedelta(seconds=2), "superseded", True),
            ("incident", timeline.begin - timedelta(hours=1), "replayed", False),
            ("other", timeline.begin + timedelta(seconds=1), "confirmed", False),
        ):
            _audit(conn, workspace, at, code, alert=alert)
        for name, source, target, created in (
            ("in-time", "other", "incident", timeline.begin + timedelta(seconds=1)),
            ("too-late", "incident", "other", timeline.end + timedelta(hours=1)),
        ):
            conn.execute(
                "INSERT INTO delegations (delegation_id, type, source_id, target_id, task, created_at, state,"
                " delivered_at, attempts)"
                " VALUES (%s, 'delegate', %s, %s, 'the secret plan', %s, 'delivered', %s, 1)",
                [name, source, target, created, created],
            )
    return url


def _audit(
    conn: psycopg.Connection[tuple[object, ...]], workspace: str, at: datetime, code: str, *, alert: bool
) -> None:
    conn.execute(
        "INSERT INTO audit_log"
        " (at, workspace_id, generation, operation, identity, credential_kind, code, from_box,"
        " needs_attention, request_id)"
        " VALUES (%s, %s, 1, 'register', 'current', 'absent', %s, true, %s, 'r-1')",
        [at, workspace, code, alert],
    )


def _of(timeline: Timeline, lane: Lane) -> list[tuple[str, Tone]]:
    return [(entry.text, entry.tone) for entry in timeline.entries if entry.lane is lane]


async def with_context(timeline: Timeline, database_url: str) -> Timeline:
    """Retry while the database is unavailable: on a busy machine it may be slow."""

    async def read() -> Timeline:
        return await with_database_context(timeline, database_url)

    return await eventually(read, lambda it: "is unavailable" not in it.database_note, seconds=SECONDS)


async def test_audit_log_and_delegations_of_that_time_are_added(database: str) -> None:
    timeline = await with_context(timeline_of("incident"), database)
    calls = _of(timeline, Lane.AUDIT)
    assert [text.split(" (")[0] for text, _ in calls] == [
        "register from its box: minted",
        "register from its box: superseded",
    ]
    assert [tone for _, tone in calls] == [Tone.GOOD, Tone.BAD]
    work = [text for text, _ in _of(timeline, Lane.WORK)]
    assert len(work) == 2
    assert all(text.startswith("delegate in-time from other") for text in work)
    assert "not processed yet" in work[1]
    assert timeline.database_note == "From the database: 2 rows of the audit log, 1 delegation."


async def test_the_page_shows_them_without_the_content_of_a_delegation(database: str) -> None:
    timeline = await with_context(timeline_of("incident"), database)
    assert {"Register API", "Delegations"} <= {group.name for group in row_groups(timeline)}
    page = render(timeline)
    assert "register from its box: minted" in page
    assert "secret plan" not in page


async def test_a_database_without_the_schema_is_reported(postgres: Postgres) -> None:
    timeline = await with_context(timeline_of("incident"), empty_database(postgres, "bare"))
    assert "has no audit log (UndefinedTable)" in timeline.database_note
    assert not _of(timeline, Lane.AUDIT)


async def test_an_unknown_workspace_has_no_entries(database: str) -> None:
    unknown = replace(timeline_of("incident"), workspace_id="nobody")
    timeline = await with_context(unknown, database)
    assert timeline.database_note.startswith("From the database: 0 rows")
