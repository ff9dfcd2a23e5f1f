"""What opens or closes a generation reads no ended delegation, however many there are: see their plans."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any, ClassVar, Self

import psycopg
import pytest
from psycopg.abc import Params
from psycopg.rows import TupleRow, tuple_row
from typing_extensions import override

from devstack.postgres import Postgres
from store.db.pool import Connection
from store.workspace import generations
from tests.database import migrated_database, patient_pool
from tests.store.delegation.ledger import Ledger, open_next
from workflows.delegation.rules import DelegationType

pytestmark = pytest.mark.anyio

ENDED = 100
"""Of each kind in each workspace: 6,000 in all."""


@pytest.fixture(scope="module")
def database(postgres: Postgres) -> str:
    return migrated_database(postgres, "delegation_plans")


@pytest.fixture
async def ledger(database: str) -> AsyncIterator[Ledger]:
    async with patient_pool(database, maximum=2) as pool:
        yield Ledger(pool)


async def busy_workspace(ledger: Ledger) -> str:
    """One of 30 workspaces, each with many ended delegations and canaries, and one open one of each kind."""
    workspaces = [await ledger.workspace() for _ in range(30)]
    await ledger.rows(
        """
        INSERT INTO delegations (delegation_id, type, source_id, target_id, task, state, ended_at)
        SELECT workspace_id || '-' || kind || '-' || n, kind, CASE kind WHEN 'delegate' THEN workspace_id END,
               workspace_id, 'do it', 'processed', now()
        FROM unnest(%s::text[]) workspace_id, generate_series(1, %s) n,
             unnest(ARRAY['delegate', 'canary']) kind
        """,
        workspaces,
        ENDED,
    )
    for workspace_id in workspaces:
        await ledger.delegation(workspace_id)
        await ledger.delegation(workspace_id, type_=DelegationType.CANARY)
    await ledger.rows("ANALYZE delegations")
    return workspaces[0]


class ExplainingCursor(psycopg.AsyncCursor[TupleRow]):
    """A cursor that notes how its statements find delegations, before it executes them."""

    scans: ClassVar[list[str]] = []

    @override
    async def execute(  # type: ignore[override] # the statements of the store are strings
        self,
        query: str,
        params: Params | None = None,
        *,
        prepare: bool | None = None,
        binary: bool | None = None,
    ) -> Self:
        explained = psycopg.AsyncCursor(self.connection, row_factory=tuple_row)
        await explained.execute(f"EXPLAIN (FORMAT JSON) {query}".encode(), params)
        [(explanation,)] = await explained.fetchall()
        self.scans.extend(delegation_scans(explanation[0]["Plan"]))
        return await super().execute(query.encode(), params, prepare=prepare, binary=binary)


def delegation_scans(plan: dict[str, Any]) -> list[str]:
    """The index of each scan of delegations, or the kind of scan if it uses none."""
    if plan.get("Relation Name") == "delegations" and plan["Node Type"] != "ModifyTable":
        indexes = [node["Index Name"] for node in nodes(plan) if "Index Name" in node]
        return indexes or [plan["Node Type"]]
    return [scan for child in plan.get("Plans", ()) for scan in delegation_scans(child)]


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for child in plan.get("Plans", ()):
        yield from nodes(child)


@asynccontextmanager
async def explained(ledger: Ledger) -> AsyncIterator[tuple[Connection, list[str]]]:
    """A transaction, and the scans of delegations by its statements."""
    ExplainingCursor.scans.clear()
    async with ledger.transaction() as conn:
        conn.cursor_factory = ExplainingCursor
        yield conn, ExplainingCursor.scans


async def test_opening_a_generation_reads_open_delegations_only(ledger: Ledger) -> None:
    workspace_id = await busy_workspace(ledger)
    async with explained(ledger) as (conn, scans):
        await open_next(conn, workspace_id, 2)
    assert scans == ["open_delegations_by_target"] * 2


async def test_deleting_a_workspace_reads_open_delegations_only(ledger: Ledger) -> None:
    workspace_id = await busy_workspace(ledger)
    async with explained(ledger) as (conn, scans):
        await generations.lock(conn, workspace_id)
        await generations.close(conn, workspace_id, generation=1, intent="delete")
    assert scans == [*["open_delegations_by_target"] * 2, "open_delegations_by_source"]
