"""The register API as a process, with synchronous clients of it and of its database, for stateful tests."""

import asyncio
import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import LiteralString
from unittest import mock

import httpx2
import psycopg
from psycopg import AsyncConnection
from psycopg.rows import DictRow, dict_row
from typing_extensions import override

from store.db.pool import Connection
from store.workspace import generations
from tests.register_api.platform import KEYS
from tests.register_api.serving import PATIENT, ApiProcess, api_process

_numbers = count(100_000)


async def open_next(conn: Connection, workspace_id: str, generation: int) -> None:
    """Open a generation as the activity does; the first one also creates the workspace."""
    async with conn.transaction():
        await generations.enroll(conn, workspace_id, spec={})
        await generations.lock(conn, workspace_id)
        await generations.open_generation(
            conn, workspace_id, generation=generation, key_id=KEYS.current, spec={}, phase="recreating"
        )


@dataclass(frozen=True, slots=True)
class ApiResponse:
    """A response; status 0 if it was lost."""

    status: int
    body: dict[str, object]
    headers: Mapping[str, str]

    @property
    def token(self) -> str | None:
        token = self.body.get("auth_token")
        return token if isinstance(token, str) else None

    @override
    def __str__(self) -> str:
        return f"{self.status} {self.body.get('code', '')}".strip()


class Stage:
    """The API and its database, shared by consecutive histories."""

    def __init__(
        self, database: str, api: ApiProcess, directory: Path, resources: ExitStack, *, incident_rule: bool
    ) -> None:
        self.api = api
        self.incident_rule = incident_rule
        self.directory = directory
        """The directory of the boxes' files."""
        self.unproven_responses: dict[tuple[str, bool], object] = {}
        """The first responses to unproven callers, across all histories."""
        connect = psycopg.connect
        self._database = resources.enter_context(connect(database, autocommit=True, row_factory=dict_row))
        self._locks = resources.enter_context(connect(database, autocommit=True))
        self._thread = resources.enter_context(ThreadPoolExecutor(1))
        self._runner = resources.enter_context(asyncio.Runner())
        self._opener = self._runner.run(AsyncConnection.connect(database, autocommit=True))
        resources.callback(lambda: self._runner.run(self._opener.close()))
        self._http = self._client()
        resources.callback(lambda: self._http.close())
        neighbour = self.new_workspace()
        self.open_next(neighbour, 1)
        secret = KEYS.bootstrap_secret(neighbour, 1, key_id=KEYS.current)
        response = self.send("POST", "/registry/register", {"X-Bootstrap-Token": secret}, {"id": neighbour})
        self.neighbours_token = response.token
        """A live token of another workspace."""

    def new_workspace(self) -> str:
        """A new ID. All have the same length, so that a response's length reveals nothing."""
        return f"ws-{next(_numbers)}"

    def open_next(self, workspace_id: str, generation: int) -> None:
        self._runner.run(open_next(self._opener, workspace_id, generation))

    def rows(self, query: LiteralString, *parameters: object) -> list[DictRow]:
        return self._database.execute(query, parameters).fetchall()

    def write(self, statement: LiteralString, *parameters: object) -> None:
        self._database.execute(statement, parameters)

    def send(
        self, method: str, path: str, headers: Mapping[str, str], body: dict[str, object] | None = None
    ) -> ApiResponse:
        try:
            answer = self._http.request(method, path, json=body, headers=headers)
        except httpx2.TransportError:
            return ApiResponse(0, {}, {})
        return ApiResponse(answer.status_code, answer.json(), answer.headers)

    def kill(self, call: Callable[[], ApiResponse], *, held: LiteralString, workspace_id: str) -> ApiResponse:
        """Send SIGKILL to the API while the call waits for the rows that `held` locks, then restart it."""
        with self._locks.transaction():
            self._locks.execute(held, [workspace_id])
            answer = self._thread.submit(call)
            while not answer.done() and not self._backends("wait_event_type = 'Lock'"):
                pass  # until it waits, or has its response
            self.api.kill()
        while self._backends("true"):
            pass  # the server still executes what the dead process had sent
        response = answer.result()
        self.api.start()
        self._http.close()
        self._http = self._client()
        return response

    def _client(self) -> httpx2.Client:
        limits = httpx2.Limits(max_keepalive_connections=0)  # a connection for each call, as the script has
        return httpx2.Client(base_url=self.api.url, timeout=60, trust_env=False, verify=False, limits=limits)

    def _backends(self, condition: LiteralString) -> bool:
        query: LiteralString = (
            "SELECT FROM pg_stat_activity WHERE datname = current_database()"
            " AND application_name = 'onebox-api' AND "
        )
        return bool(self.rows(query + condition))


@contextmanager
def stage(database: str, directory: Path, *, incident_rule: bool = False) -> Iterator[Stage]:
    """A stage for the block; `incident_rule` as in `serving`."""
    # Test files need not survive a crash.
    no_fsync = mock.patch.object(os, "fsync", return_value=None)
    with (
        api_process(database, incident_rule=incident_rule, pool_size=4, waits=PATIENT) as api,
        ExitStack() as resources,
        no_fsync,
    ):
        yield Stage(database, api, directory, resources, incident_rule=incident_rule)
