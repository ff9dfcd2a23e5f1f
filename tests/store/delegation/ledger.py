"""Workspaces with open generations and delegations between them, through the store's own functions."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import count
from typing import cast

from psycopg.rows import dict_row

from store.db.pool import Connection, Pool
from store.delegation import delegations
from store.delegation.delegations import NewDelegation
from store.workspace import generations
from tests.database import PATIENCE
from workflows.delegation.rules import DelegationState, DelegationType

_NUMBERS = count(1)
Values = dict[str, object]


@dataclass(frozen=True, slots=True)
class Ledger:
    """The database, with helpers to create and read workspaces and delegations."""

    pool: Pool

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Connection]:
        """A connection in a transaction for the block."""
        async with self.pool.connection() as conn, conn.transaction():
            yield conn

    async def rows(self, query: str, *values: object) -> list[Values]:
        async with self.pool.connection() as conn:
            cursor = conn.cursor(row_factory=dict_row)
            await cursor.execute(query.encode(), values)
            return cast("list[Values]", await cursor.fetchall()) if cursor.description else []

    async def row(self, delegation_id: str) -> Values:
        [row] = await self.rows("SELECT * FROM delegations WHERE delegation_id = %s", delegation_id)
        return row

    async def events(self, workspace_id: str) -> list[tuple[object, object]]:
        rows = await self.rows(
            "SELECT generation, kind FROM workspace_outbox WHERE workspace_id = %s ORDER BY event_id",
            workspace_id,
        )
        return [(row["generation"], row["kind"]) for row in rows]

    async def workspace(self) -> str:
        """Create a workspace with its first generation open."""
        name = f"ws-{next(_NUMBERS)}"
        async with self.transaction() as conn:
            await generations.enroll(conn, name, spec={})
        await self.opened(name, 1)
        return name

    async def opened(self, workspace_id: str, generation: int) -> None:
        async with self.transaction() as conn:
            await open_next(conn, workspace_id, generation)

    async def delegation(
        self,
        target_id: str,
        *,
        state: DelegationState = DelegationState.QUEUED,
        type_: DelegationType = DelegationType.DELEGATE,
        generation: int = 1,
    ) -> str:
        """Create a delegation to a generation of the target, in the given state."""
        source_id = None if type_ is DelegationType.CANARY else await self.workspace()
        new = NewDelegation(
            delegation_id=f"d-{next(_NUMBERS)}",
            type=type_,
            source_id=source_id,
            target_id=target_id,
            task="do it",
        )
        async with self.transaction() as conn:
            assert await delegations.create(conn, new) is None
            if state is not DelegationState.QUEUED:
                assert await delegations.record_progress(
                    conn, new.delegation_id, state, generation=generation, attempt=0
                )
        return new.delegation_id

    async def report(
        self,
        delegation_id: str,
        new_state: DelegationState,
        *,
        generation: int = 1,
        attempt: int | None = None,
    ) -> bool:
        async with self.transaction() as conn:
            return await delegations.record_progress(
                conn, delegation_id, new_state, generation=generation, attempt=attempt, preview="the result"
            )

    async def end(
        self, delegation_id: str, new_state: DelegationState, *, attempt: int | None = None
    ) -> bool:
        async with self.pool.connection() as conn:
            return await delegations.end(
                conn, delegation_id, new_state, code="ended", error="it ended", attempt=attempt
            )

    async def until_waiting(self, number: int = 1) -> None:
        """Wait until `number` sessions of the database wait for a lock."""
        async with asyncio.timeout(PATIENCE.total_seconds()):
            while True:
                [row] = await self.rows(
                    "SELECT count(*) AS waiting FROM pg_stat_activity"
                    " WHERE datname = current_database() AND wait_event_type = 'Lock'"
                )
                if row["waiting"] == number:
                    return
                await asyncio.sleep(0)


async def open_next(conn: Connection, workspace_id: str, generation: int) -> None:
    """Open a generation as the activity does: lock the workspace, supersede the old generation."""
    await generations.lock(conn, workspace_id)
    await generations.open_generation(
        conn, workspace_id, generation=generation, key_id="k1", spec={}, phase="recreating"
    )
