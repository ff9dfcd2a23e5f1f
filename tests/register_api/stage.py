"""The register API as a process, its database, and a synchronous client of each: where histories are played.

Knows no boxes, and judges nothing.
"""

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

import httpx
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
    """Open a generation as the activity does; the first one with its workspace."""
    async with conn.transaction():
        await generations.enroll(conn, workspace_id, spec={})
        await generations.lock(conn, workspace_id)
        await generations.open_generation(
            conn, workspace_id, generation=generation, key_id=KEYS.current, spec={}, phase="recreating"
        )


@dataclass(frozen=True, slots=True)
class Told:
    """An answer; its loss has the status 0."""

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
    """For one history after the other."""

    def __init__(
        self, database: str, api: ApiProcess, directory: Path, resources: ExitStack, *, naive: bool
    ) -> None:
        self.api = api
        self.naive = naive
        self.directory = directory
        """For the boxes' files."""
        self.strangers_were_told: dict[tuple[str, bool], object] = {}
        """In whatever history."""
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
        told = self.send("POST", "/registry/register", {"X-Bootstrap-Token": secret}, {"id": neighbour})
        self.neighbours_token = told.token
        """A live token of another workspace."""

    def new_workspace(self) -> str:
        """An ID as long as all others: an answer's length tells nothing."""
        return f"ws-{next(_numbers)}"

    def open_next(self, workspace_id: str, generation: int) -> None:
        self._runner.run(open_next(self._opener, workspace_id, generation))

    def rows(self, query: LiteralString, *parameters: object) -> list[DictRow]:
        return self._database.execute(query, parameters).fetchall()

    def write(self, statement: LiteralString, *parameters: object) -> None:
        self._database.execute(statement, parameters)

    def send(
        self, method: str, path: str, headers: Mapping[str, str], body: dict[str, object] | None = None
    ) -> Told:
        try:
            answer = self._http.request(method, path, json=body, headers=headers)
        except httpx.TransportError:
            return Told(0, {}, {})
        return Told(answer.status_code, answer.json(), answer.headers)

    def kill(self, call: Callable[[], Told], *, held: LiteralString, workspace_id: str) -> Told:
        """SIGKILL the API while the call waits for the rows that `held` locks, and start it again."""
        with self._locks.transaction():
            self._locks.execute(held, [workspace_id])
            answer = self._thread.submit(call)
            while not answer.done() and not self._backends("wait_event_type = 'Lock'"):
                pass  # it is about to wait, or to be answered without
            self.api.kill()
        while self._backends("true"):
            pass  # what the dead process had sent is still carried out
        told = answer.result()
        self.api.start()
        self._http.close()
        self._http = self._client()
        return told

    def _client(self) -> httpx.Client:
        limits = httpx.Limits(max_keepalive_connections=0)  # a connection for each call, as the script has
        return httpx.Client(base_url=self.api.url, timeout=60, trust_env=False, verify=False, limits=limits)

    def _backends(self, condition: LiteralString) -> bool:
        query: LiteralString = (
            "SELECT FROM pg_stat_activity WHERE datname = current_database()"
            " AND application_name = 'onebox-api' AND "
        )
        return bool(self.rows(query + condition))


@contextmanager
def stage(database: str, directory: Path, *, naive: bool = False) -> Iterator[Stage]:
    """A stage for the block; `naive` as in `serving`."""
    # What the boxes write need not outlive the machine.
    no_fsync = mock.patch.object(os, "fsync", return_value=None)
    with (
        api_process(database, naive=naive, pool_size=4, waits=PATIENT) as api,
        ExitStack() as resources,
        no_fsync,
    ):
        yield Stage(database, api, directory, resources, naive=naive)
