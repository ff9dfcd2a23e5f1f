"""Onebox and the alternative designs behind one interface, for the incident benchmark.

They share one Temporal server, one PostgreSQL server (a database each), one AWS endpoint and one box host.
"""

import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Protocol

import httpx2
import psycopg
from psycopg import sql
from temporalio.api.history.v1 import HistoryEvent
from typing_extensions import override

from bench.alternatives import registry
from bench.alternatives.signals import BaselineWorkflow
from bench.load.wire import Wire, wired
from devstack.console import Console
from devstack.processes import LOCALHOST, Program, accepts_connections, free_port
from devstack.stack import Stack

ADMIN = "admin:core-devops"


class ControlPlane(Protocol):
    """One control plane."""

    name: str
    wire: Wire

    async def ask(self, workspace_id: str, *, by: str, request_id: str) -> None:
        """Request a restart of the first box. An empty `by` requests the first box itself."""
        ...

    def kill(self) -> None:
        """SIGKILL the processes that execute restarts."""
        ...

    def revive(self) -> None:
        """Start them again, as their supervisor would."""
        ...

    async def answered(self, workspace_id: str) -> set[str]:
        """Return the requests with a recorded outcome."""
        ...

    async def history(self, workspace_id: str) -> list[HistoryEvent]:
        """Return the number of the workspace's events in Temporal."""
        ...


@dataclass(slots=True, kw_only=True)
class Onebox:
    """The product."""

    stack: Stack
    console: Console
    wire: Wire
    name: str = "Onebox"

    async def ask(self, workspace_id: str, *, by: str, request_id: str) -> None:
        """Send requests of watchdogs as signals and those of people as updates, as in the field."""
        if by == "":
            await self.console.start(workspace_id)
            return
        payload: dict[str, object] = {
            "requested_by": by,
            "reason": "no answer",
            "observed_generation": 1,
            "request_id": request_id,
        }
        if by == ADMIN:
            await self.console.ask(workspace_id, **payload)
        else:
            await self.console.signal(workspace_id, **payload)

    def kill(self) -> None:
        """Kill the worker."""
        self.stack.kill("worker")

    def revive(self) -> None:
        """Start the worker."""
        self.stack.start("worker")

    async def answered(self, workspace_id: str) -> set[str]:
        """Return the requests with a recorded outcome."""
        rows = await self.console.rows(
            "SELECT request_id FROM requests WHERE workspace_id = %s", workspace_id
        )
        return {str(row["request_id"]) for row in rows}

    async def history(self, workspace_id: str) -> list[HistoryEvent]:
        """Return the events of the current run."""
        return list((await self.console.workflow(workspace_id).fetch_history()).events)


@dataclass(slots=True, kw_only=True)
class Baseline:
    """A register API and workers, as processes."""

    name: str
    console: Console
    wire: Wire
    http: httpx2.AsyncClient
    database_url: str
    workers: list[Program] = field(default_factory=list)

    async def ask(self, workspace_id: str, *, by: str, request_id: str) -> None:
        """Request the restart through its API."""
        body = {"workspace_id": workspace_id, "request_id": request_id, "requested_by": by or "owner"}
        (await self.http.post("/restart", json=body)).raise_for_status()

    def kill(self) -> None:
        """Kill all of them, because the replica that executes the restart is unknown."""
        for worker in self.workers:
            worker.kill()

    def revive(self) -> None:
        """Start all of them."""
        for worker in self.workers:
            worker.start()

    async def answered(self, workspace_id: str) -> set[str]:
        """Return the answered requests from its table."""
        async with await psycopg.AsyncConnection.connect(self.database_url) as connection:
            cursor = await connection.execute(
                "SELECT request_id FROM recreate_requests WHERE workspace_id = %s AND done_at IS NOT NULL",
                [workspace_id],
            )
            return {str(row[0]) for row in await cursor.fetchall()}

    async def history(self, workspace_id: str) -> list[HistoryEvent]:  # noqa: ARG002 - as the others take it
        """It has none."""
        return []


class SignalsBaseline(Baseline):
    """Heartbeats as signals."""

    @override
    async def answered(self, workspace_id: str) -> set[str]:
        handle = self.console.client.get_workflow_handle(workspace_id)
        return set(await handle.query(BaselineWorkflow.answered))

    @override
    async def history(self, workspace_id: str) -> list[HistoryEvent]:
        return list((await self.console.client.get_workflow_handle(workspace_id).fetch_history()).events)


@asynccontextmanager
async def running_control_planes(
    stack: Stack, console: Console, *, box_port: int
) -> AsyncIterator[list[ControlPlane]]:
    """Run all three for the block. The product's boxes reach its API at `box_port`, the end of a wire."""
    async with AsyncExitStack() as opened:
        upstream = int(stack.environment["REGISTER_API_BIND"].rpartition(":")[2])
        wire = await opened.enter_async_context(wired(upstream, box_port))
        contenders: list[ControlPlane] = [Onebox(stack=stack, console=console, wire=wire)]
        alternatives: tuple[tuple[str, str, Callable[..., Baseline], str, int], ...] = (
            ("heartbeats as signals", "signals", SignalsBaseline, "worker", 1),
            ("lock row and cron", "cron", Baseline, "loop", 2),
        )
        for name, module, made, role, replicas in alternatives:
            url = _database(stack.database_url, f"rival_{module}")
            port = free_port()
            wire = await opened.enter_async_context(wired(port))
            environment = stack.environment | {
                "DATABASE_URL": url,
                "PLATFORM_URL": f"http://{LOCALHOST}:{wire.port}",
            }
            api = _program(stack, module, f"{module}-api", environment, "api", str(port))
            opened.enter_context(_running(api))
            workers = [
                _program(stack, module, f"{module}-{role}-{number}", environment, role)
                for number in range(replicas)
            ]
            for worker in workers:
                opened.enter_context(_running(worker))
            http = await opened.enter_async_context(
                httpx2.AsyncClient(base_url=f"http://{LOCALHOST}:{port}", timeout=10, trust_env=False)
            )
            contenders.append(
                made(name=name, console=console, wire=wire, http=http, database_url=url, workers=workers)
            )
        yield contenders


def _database(url: str, name: str) -> str:
    """Create a database with the schema of an alternative design."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    own = f"{url.rpartition('/')[0]}/{name}"
    with psycopg.connect(own, autocommit=True) as connection:
        connection.execute(registry.SCHEMA.encode())
    return own


def _program(
    stack: Stack, module: str, name: str, environment: Mapping[str, str], *arguments: str
) -> Program:
    port = int(arguments[1]) if len(arguments) > 1 else None
    return Program(
        name,
        [sys.executable, "-m", f"bench.alternatives.{module}", *arguments],
        log=stack.log(name),
        environment=environment,
        ready=lambda it: ".started" in it.log_text() if port is None else accepts_connections(port),
    )


@contextmanager
def _running(program: Program) -> Iterator[None]:
    program.start()
    try:
        yield
    finally:
        program.kill()
