"""Brings workspaces online, and waits for it in the database, because queries would load the worker."""

from collections.abc import Sequence

from devstack.console import Console, eventually

AT_ONCE = 10
"""Number of concurrent starts."""

ONLINE_SECONDS = 120.0


async def bring_online(console: Console, names: Sequence[str]) -> None:
    """Start them in batches and wait until each is recorded as online with an answered canary."""
    for start in range(0, len(names), AT_ONCE):
        some = list(names[start : start + AT_ONCE])
        for name in some:
            await console.start(name)

        async def waited_for(some: Sequence[str] = some) -> Sequence[object]:
            rows = await console.rows(
                "SELECT w.workspace_id FROM workspaces w JOIN generations g USING (workspace_id, generation)"
                " WHERE workspace_id = ANY(%s) AND w.phase = 'online' AND g.last_processed_at IS NOT NULL",
                some,
            )
            return sorted({*some} - {row["workspace_id"] for row in rows})

        await eventually(waited_for, lambda missing: not missing, seconds=ONLINE_SECONDS)
