"""Operator and watchdog actions on a running stack, as functions for the demo and the tests.

Uses public interfaces only: Temporal, the register API, and SQL for reading.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TypeVar, cast
from urllib.parse import urlsplit

import httpx2
import psycopg
from psycopg.rows import dict_row
from temporalio.client import Client, WorkflowHandle

from client.plugin import OneboxPlugin
from client.workspaces import NotReached, Workspaces
from devstack.aws.client import AwsEndpoint
from devstack.stack import Stack
from workflows.shared.encryption import PayloadKeys
from workflows.workspace.enums import Phase
from workflows.workspace.messages import RequestOutcome, WorkspaceSpec, WorkspaceStatus

POLL_SECONDS = 0.1
TIMEOUT_SECONDS = 120.0
"""A generation takes a few seconds on an idle machine. A busy machine may stall for longer, and
retries back off."""

BOX_SECONDS = 30.0

JSON = dict[str, object]
_T = TypeVar("_T")


class ConditionNotMet(AssertionError):
    """A condition did not become true in time. The text contains the last value."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Console:
    """One connection to each part of a stack."""

    client: Client
    http: httpx2.AsyncClient
    aws: AwsEndpoint
    database_url: str

    @property
    def workspaces(self) -> Workspaces:
        """The client for workspace workflows."""
        return Workspaces(self.client)

    def workflow(self, workspace_id: str) -> WorkflowHandle[object, object]:
        """A handle for the current run of the workspace's workflow."""
        return self.workspaces.workflow(workspace_id)

    async def start(self, workspace_id: str, spec: WorkspaceSpec | None = None) -> None:
        """Create a workspace."""
        await self.workspaces.start(workspace_id, spec)

    async def signal(self, workspace_id: str, name: str = "recreate", /, **payload: object) -> None:
        """Send a signal; the payload is not validated."""
        await self.workspaces.signal(workspace_id, name, **payload)

    async def ask(
        self, workspace_id: str, name: str = "request_recreate", /, **payload: object
    ) -> RequestOutcome:
        """Send a request as an update and return its outcome."""
        return await self.workspaces.request(workspace_id, name, **payload)

    async def status(self, workspace_id: str) -> WorkspaceStatus:
        """The workspace's status."""
        return await self.workspaces.status(workspace_id)

    async def requests(self, workspace_id: str) -> list[RequestOutcome]:
        """The last 50 requests with their outcomes."""
        return await self.workspaces.requests(workspace_id)

    async def call(self, method: str, path: str, body: JSON | None = None) -> httpx2.Response:
        """Call the register API as an operator, with retries."""
        return await call_with_retries(self.http, method, path, body)

    async def record(self, workspace_id: str) -> JSON:
        """Return the workspace record from the register API."""
        answer = await self.call("GET", f"/workspaces/{workspace_id}")
        return cast("JSON", answer.json())

    async def until_phase(
        self,
        workspace_id: str,
        phase: Phase,
        *,
        generation: int | None = None,
        seconds: float = TIMEOUT_SECONDS,
        tell: Callable[[WorkspaceStatus], None] | None = None,
    ) -> WorkspaceStatus:
        """Wait until the workspace is in the phase; `tell` gets each status. Raises `ConditionNotMet`."""
        try:
            return await self.workspaces.wait_for_phase(
                workspace_id, phase, generation=generation, seconds=seconds, on_status=tell
            )
        except NotReached as error:
            raise ConditionNotMet(str(error)) from None

    async def rows(self, query: str, *parameters: object) -> list[JSON]:
        """Run an SQL query."""
        connection = await psycopg.AsyncConnection.connect(self.database_url, row_factory=dict_row)
        async with connection:
            cursor = await connection.execute(query.encode(), parameters)
            return await cursor.fetchall()

    async def live_tokens(self, workspace_id: str) -> list[JSON]:
        """Return generation and state of every token that is not revoked."""
        return await self.rows(
            "SELECT generation, state FROM tokens WHERE workspace_id = %s AND state <> 'revoked'",
            workspace_id,
        )

    async def set_box_mode(self, workspace_id: str, mode: str) -> None:
        """Set the mode of the current box's runtime: healthy, silent, braindead, lose_token."""
        await self._call_box(workspace_id, "POST", "/_control", {"mode": mode})

    async def write_data(self, workspace_id: str, name: str, text: str) -> None:
        """Have the current box's runtime write a file on the data volume."""
        await self._call_box(workspace_id, "POST", f"/_data/{name}", {"text": text})

    async def read_data(self, workspace_id: str, name: str) -> str:
        """Have the current box's runtime read a file from the data volume."""
        answer = await self._call_box(workspace_id, "GET", f"/_data/{name}")
        return str(answer["text"])

    async def _call_box(self, workspace_id: str, method: str, path: str, body: JSON | None = None) -> JSON:
        """Call the box until it answers. Each of these calls may be made twice."""

        async def once() -> httpx2.Response | None:
            record = await self.record(workspace_id)
            if not record["url"] or record["private_ip"] is None:
                return None  # the registration is not recorded yet
            port = urlsplit(str(record["url"])).port
            try:
                async with httpx2.AsyncClient(timeout=BOX_SECONDS, trust_env=False) as http:
                    url = f"http://{record['private_ip']}:{port}{path}"
                    return await http.request(method, url, json=body)
            except httpx2.TransportError:
                return None

        answer = await eventually(once, lambda seen: seen is not None)
        assert answer is not None  # noqa: S101 - `eventually` returns an answer only
        answer.raise_for_status()
        return cast("JSON", answer.json())


RETRY_STATUSES = frozenset({408, 502, 503})
"""Statuses with which the register API or a balancer asks the caller to retry."""


async def call_with_retries(
    http: httpx2.AsyncClient, method: str, path: str, body: JSON | None = None
) -> httpx2.Response:
    """Call the register API. Retries without a response and on retryable statuses."""

    async def once() -> httpx2.Response | httpx2.TransportError:
        try:
            return await http.request(method, path, json=body)
        except httpx2.TransportError as error:
            return error

    def is_answer(seen: httpx2.Response | httpx2.TransportError) -> bool:
        return isinstance(seen, httpx2.Response) and seen.status_code not in RETRY_STATUSES

    return cast("httpx2.Response", await eventually(once, is_answer))


@asynccontextmanager
async def connected(stack: Stack, *, payload_keys: str | None = None) -> AsyncIterator[Console]:
    """Connect to a running stack. `payload_keys` replaces the keys of its processes."""
    keys = PayloadKeys.parse(stack.payload_keys if payload_keys is None else payload_keys)
    client = await Client.connect(stack.temporal_address, plugins=[OneboxPlugin(keys)])
    headers = {"Authorization": f"Bearer {stack.operator_token}"}
    async with httpx2.AsyncClient(base_url=stack.register_api_url, headers=headers, timeout=60) as http:
        with AwsEndpoint(stack.aws_url) as aws:
            yield Console(client=client, http=http, aws=aws, database_url=stack.database_url)


async def eventually(
    poll: Callable[[], Awaitable[_T]],
    is_met: Callable[[_T], bool],
    *,
    seconds: float = TIMEOUT_SECONDS,
) -> _T:
    """Poll until the condition holds. Raises `ConditionNotMet` with the last value."""
    deadline = time.monotonic() + seconds
    while True:
        seen = await poll()
        if is_met(seen):
            return seen
        if time.monotonic() > deadline:
            raise ConditionNotMet(f"after {seconds:g} s: {seen}")
        await asyncio.sleep(POLL_SECONDS)
