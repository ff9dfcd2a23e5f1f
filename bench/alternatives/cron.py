"""Alternative design: a lock row and a cron loop, without a workflow engine.

Run as `python -m bench.alternatives.cron api|loop`. Rationale of such a team: requests are rows, so that none
is lost when a process dies. Two replicas of the loop run, so that one may die. A lock row per workspace
separates them; it expires, so that a dead replica does not hold it forever. The holder answers all open
requests, so that three requests are one restart. It waits for the old instance, which holds the volume.
"""

import asyncio
import os
import sys
import uuid

from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from bench.alternatives import registry
from bench.alternatives.cloud import Cloud
from bench.alternatives.registry import Pool

LOOP_SECONDS = 0.5
"""A cron runs once a minute; here boxes take a second where EC2's take a minute."""

LOCK_SECONDS = 5.0
"""Four times the duration of a restart on this endpoint, as five minutes are on EC2."""

_LOCK = """
UPDATE workspaces SET locked_by = %(me)s, locked_until = now() + %(seconds)s * interval '1 second'
WHERE workspace_id = %(workspace_id)s AND (locked_until IS NULL OR locked_until < now())
RETURNING workspace_id
"""


async def api(port: int) -> None:
    """The register API and the restart call."""
    async with registry.opened(os.environ["DATABASE_URL"]) as pool:

        async def on_beat(workspace_id: str) -> None:
            async with pool.connection() as conn:
                await conn.execute(
                    "UPDATE workspaces SET last_heartbeat_at = now() WHERE workspace_id = %s", [workspace_id]
                )

        async def restart(request: Request) -> JSONResponse:
            body = await request.json()
            async with pool.connection() as conn:
                await conn.execute(
                    "INSERT INTO workspaces (workspace_id) VALUES (%s) ON CONFLICT DO NOTHING",
                    [body["workspace_id"]],
                )
                await conn.execute(
                    "INSERT INTO recreate_requests (request_id, workspace_id, requested_by) VALUES (%s, %s, "
                    "%s)",
                    [body["request_id"], body["workspace_id"], body["requested_by"]],
                )
            return JSONResponse({"status": "scheduled"}, status_code=202)

        await registry.serve(pool, on_beat, port=port, more=(Route("/restart", restart, methods=["POST"]),))


async def loop() -> None:
    """Run one replica of the loop until it is killed."""
    me = str(uuid.uuid4())
    cloud = Cloud(os.environ["PLATFORM_URL"])
    async with registry.opened(os.environ["DATABASE_URL"]) as pool, asyncio.TaskGroup() as tasks:
        sys.stdout.write("loop.started\n")
        sys.stdout.flush()
        while True:
            for workspace_id in await _asked(pool):
                if await _locked(pool, workspace_id, me):
                    tasks.create_task(_restart(pool, cloud, workspace_id, me))
            await asyncio.sleep(LOOP_SECONDS)


async def _asked(pool: Pool) -> list[str]:
    """Return the workspaces with open requests."""
    async with pool.connection() as conn:
        cursor = await conn.execute(
            "SELECT DISTINCT workspace_id FROM recreate_requests WHERE done_at IS NULL"
        )
        return [row[0] for row in await cursor.fetchall()]


async def _locked(pool: Pool, workspace_id: str, me: str) -> bool:
    async with pool.connection() as conn:
        cursor = await conn.execute(_LOCK, {"me": me, "seconds": LOCK_SECONDS, "workspace_id": workspace_id})
        return await cursor.fetchone() is not None


async def _restart(pool: Pool, cloud: Cloud, workspace_id: str, me: str) -> None:
    """Replace the workspace's box while holding its lock."""
    await asyncio.to_thread(cloud.deprovision, workspace_id, wait=True)
    async with pool.connection() as conn:
        await registry.revoke_tokens(conn, workspace_id)
    launched = await asyncio.to_thread(cloud.provision, workspace_id)
    async with pool.connection() as conn, conn.transaction():
        await conn.execute(
            "UPDATE recreate_requests SET done_at = now() WHERE workspace_id = %s AND done_at IS NULL",
            [workspace_id],
        )
        await conn.execute(
            "UPDATE workspaces SET instance_id = %s, locked_until = CASE WHEN locked_by = %s THEN NULL ELSE "
            "locked_until END"
            " WHERE workspace_id = %s",
            [launched.instance_id, me, workspace_id],
        )


if __name__ == "__main__":
    asyncio.run(api(int(sys.argv[2])) if sys.argv[1] == "api" else loop())
