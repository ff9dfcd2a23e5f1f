"""What the database has of a history's time is laid beside it, and nothing is written there."""

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
from tests.cli.replay.timeline.building import story_of
from tests.database import empty_database, migrated_database, server

pytestmark = pytest.mark.anyio

SECONDS = 120.0


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    with server(tmp_path_factory.mktemp("postgres")) as running:
        yield running


@pytest.fixture(scope="module")
def database(postgres: Postgres) -> str:
    """Rows of the incident's time, of another time, and of another workspace."""
    url, story = migrated_database(postgres, "beside"), story_of("incident")
    with psycopg.connect(url, autocommit=True) as conn:
        for workspace in ("incident", "other"):
            conn.execute("INSERT INTO workspaces (workspace_id) VALUES (%s)", [workspace])
        for workspace, at, code, alert in (
            ("incident", story.begin + timedelta(seconds=1), "minted", False),
            ("incident", story.begin + timedelta(seconds=2), "superseded", True),
            ("incident", story.begin - timedelta(hours=1), "replayed", False),
            ("other", story.begin + timedelta(seconds=1), "confirmed", False),
        ):
            _audit(conn, workspace, at, code, alert=alert)
        for name, source, target, created in (
            ("in-time", "other", "incident", story.begin + timedelta(seconds=1)),
            ("too-late", "incident", "other", story.end + timedelta(hours=1)),
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


def _of(story: Timeline, lane: Lane) -> list[tuple[str, Tone]]:
    return [(entry.text, entry.tone) for entry in story.entries if entry.lane is lane]


async def patiently_laid_beside(story: Timeline, database_url: str) -> Timeline:
    """Asked again while it says that it had no answer in time: the server is there, and only slow."""

    async def laid() -> Timeline:
        return await with_database_context(story, database_url)

    return await eventually(laid, lambda it: "cannot be asked" not in it.database_note, seconds=SECONDS)


async def test_the_trail_and_the_delegations_of_that_time_are_laid_beside_it(database: str) -> None:
    story = await patiently_laid_beside(story_of("incident"), database)
    calls = _of(story, Lane.AUDIT)
    assert [text.split(" (")[0] for text, _ in calls] == [
        "register from its box: minted",
        "register from its box: superseded",
    ]
    assert [tone for _, tone in calls] == [Tone.GOOD, Tone.BAD]
    work = [text for text, _ in _of(story, Lane.WORK)]
    assert len(work) == 2
    assert all(text.startswith("delegate in-time from other") for text in work)
    assert "that is not processed" in work[1]
    assert story.database_note == "From the database: 2 rows of the register API's trail, 1 delegation."


async def test_the_page_has_lanes_for_them_and_no_content_of_a_delegation(database: str) -> None:
    story = await patiently_laid_beside(story_of("incident"), database)
    assert {"Register API", "Delegations"} <= {band.name for band in row_groups(story)}
    page = render(story)
    assert "register from its box: minted" in page
    assert "secret plan" not in page


async def test_a_database_without_the_schema_is_said(postgres: Postgres) -> None:
    story = await patiently_laid_beside(story_of("incident"), empty_database(postgres, "bare"))
    assert "has no such trail (UndefinedTable)" in story.database_note
    assert not _of(story, Lane.AUDIT)


async def test_a_workspace_that_the_database_does_not_know_has_nothing_beside_it(database: str) -> None:
    nobodys = replace(story_of("incident"), workspace_id="nobody")
    story = await patiently_laid_beside(nobodys, database)
    assert story.database_note.startswith("From the database: 0 rows")
