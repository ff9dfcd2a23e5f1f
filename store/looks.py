"""What the last looks at EC2 and at the fleet saw, kept for all workers.

Keeps what it is given; it judges nothing.
"""

from collections.abc import Mapping

from store.pool import Connection


async def note_inventory(conn: Connection, alive: Mapping[str, int]) -> None:
    """How many instances of each workspace EC2 lists as alive now."""
    await conn.execute(
        """
        INSERT INTO inventory (looked_at, alive, crowded, most)
        VALUES (now(), %(alive)s, %(crowded)s, %(most)s)
        ON CONFLICT (only_row) DO UPDATE
        SET looked_at = excluded.looked_at, alive = excluded.alive, crowded = excluded.crowded,
            most = excluded.most
        """,
        {
            "alive": sum(alive.values()),
            "crowded": sum(1 for count in alive.values() if count > 1),
            "most": max(alive.values(), default=0),
        },
    )


async def note_watchdog(conn: Connection, *, frozen: str | None) -> None:
    """The watchdog has looked; why nothing automatic begins, if that is so."""
    await conn.execute(
        """
        INSERT INTO watchdog_rounds (ended_at, frozen) VALUES (now(), %s)
        ON CONFLICT (only_row) DO UPDATE SET ended_at = excluded.ended_at, frozen = excluded.frozen
        """,
        [frozen],
    )
