"""Onebox and its rivals behind one interface: what the incident does to each of them, and what each one says.

They share one Temporal, one PostgreSQL server (each a database of its own), one AWS endpoint, one box host.
"""

import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Protocol

import httpx
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
        """Ask for a restart, about the first box; nobody (`by` empty) asks for the first box itself."""
        ...

    def kill(self) -> None:
        """SIGKILL what carries restarts out."""
        ...

    def revive(self) -> None:
        """What keeps it up starts it again."""
        ...

    async def answered(self, workspace_id: str) -> set[str]:
        """The requests that have an outcome on record."""
        ...

    async def history(self, workspace_id: str) -> list[HistoryEvent]:
        """The workspace's events in Temporal, if it has any."""
        ...


@dataclass(slots=True, kw_only=True)
class Onebox:
    """The product."""

    stack: Stack
    console: Console
    wire: Wire
    name: str = "Onebox"

    async def ask(self, workspace_id: str, *, by: str, request_id: str) -> None:
        """The watchdogs send signals, people updates, as in the field."""
        if by == "":
            await self.console.start(workspace_id)
            return
        asked: dict[str, object] = {
            "requested_by": by,
            "reason": "no answer",
            "observed_generation": 1,
            "request_id": request_id,
        }
        if by == ADMIN:
            await self.console.ask(workspace_id, **asked)
        else:
            await self.console.signal(workspace_id, **asked)

    def kill(self) -> None:
        """The worker."""
        self.stack.kill("worker")

    def revive(self) -> None:
        """The worker."""
        self.stack.start("worker")

    async def answered(self, workspace_id: str) -> set[str]:
        """From the record."""
        rows = await self.console.rows(
            "SELECT request_id FROM requests WHERE workspace_id = %s", workspace_id
        )
        return {str(row["request_id"]) for row in rows}

    async def history(self, workspace_id: str) -> list[HistoryEvent]:
        """Of the current run."""
        return list((await self.console.workflow(workspace_id).fetch_history()).events)


@dataclass(slots=True, kw_only=True)
class Baseline:
    """A register API and workers, as processes."""

    name: str
    console: Console
    wire: Wire
    http: httpx.AsyncClient
    database_url: str
    workers: list[Program] = field(default_factory=list)

    async def ask(self, workspace_id: str, *, by: str, request_id: str) -> None:
        """By its API, whoever it is."""
        body = {"workspace_id": workspace_id, "request_id": request_id, "requested_by": by or "owner"}
        (await self.http.post("/restart", json=body)).raise_for_status()

    def kill(self) -> None:
        """All of them: who of several replicas carries a restart out is not known from outside."""
        for worker in self.workers:
            worker.kill()

    def revive(self) -> None:
        """All of them."""
        for worker in self.workers:
            worker.start()

    async def answered(self, workspace_id: str) -> set[str]:
        """From its table."""
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
    """Beats as signals."""

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
    """All three, for the block. `box_port` is where the product's boxes expect its API: a wire's end."""
    async with AsyncExitStack() as opened:
        upstream = int(stack.environment["REGISTER_API_BIND"].rpartition(":")[2])
        wire = await opened.enter_async_context(wired(upstream, box_port))
        contenders: list[ControlPlane] = [Onebox(stack=stack, console=console, wire=wire)]
        rivals: tuple[tuple[str, str, Callable[..., Baseline], str, int], ...] = (
            ("beats as signals", "signals", SignalsBaseline, "worker", 1),
            ("lock row and cron", "cron", Baseline, "loop", 2),
        )
        for name, module, made, role, replicas in rivals:
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
                httpx.AsyncClient(base_url=f"http://{LOCALHOST}:{port}", timeout=10, trust_env=False)
            )
            contenders.append(
                made(name=name, console=console, wire=wire, http=http, database_url=url, workers=workers)
            )
        yield contenders


def _database(url: str, name: str) -> str:
    """A database of a rival's own, with its schema."""
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
