"""The results of the last orphan sweep and the last watchdog run, shared by all workers."""

from collections.abc import Mapping

from store.db.pool import Connection


async def record_inventory(conn: Connection, running: Mapping[str, int]) -> None:
    """Store the inventory of EC2 from the number of live instances of each workspace."""
    await conn.execute(
        """
        INSERT INTO ec2_inventory (listed_at, running, workspaces_with_duplicates, max_per_workspace)
        VALUES (now(), %(running)s, %(workspaces_with_duplicates)s, %(max_per_workspace)s)
        ON CONFLICT (only_row) DO UPDATE
        SET listed_at = excluded.listed_at, running = excluded.running,
            workspaces_with_duplicates = excluded.workspaces_with_duplicates,
            max_per_workspace = excluded.max_per_workspace
        """,
        {
            "running": sum(running.values()),
            "workspaces_with_duplicates": sum(1 for count in running.values() if count > 1),
            "max_per_workspace": max(running.values(), default=0),
        },
    )


async def record_watchdog_run(conn: Connection, *, frozen_reason: str | None) -> None:
    """Store the end of a watchdog run, and why automatic recreates are frozen, if they are."""
    await conn.execute(
        """
        INSERT INTO watchdog_status (ended_at, frozen_reason) VALUES (now(), %s)
        ON CONFLICT (only_row) DO UPDATE
        SET ended_at = excluded.ended_at, frozen_reason = excluded.frozen_reason
        """,
        [frozen_reason],
    )
