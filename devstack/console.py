"""What an operator and a watchdog do to a running stack, as functions: for the demo and for tests.

Speaks the public interfaces only (Temporal, the register API, SQL to look); it starts nothing.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TypeVar, cast
from urllib.parse import urlsplit
from uuid import uuid4

import httpx
import psycopg
from psycopg.rows import dict_row
from temporalio.client import Client, WorkflowHandle, WorkflowUpdateRPCTimeoutOrCancelledError
from temporalio.service import RPCError, RPCStatusCode

from devstack.aws.client import AwsEndpoint
from devstack.stack import Stack
from workflows.shared.encryption import PayloadKeys, converter
from workflows.workspace.messages import (
    TASK_QUEUE,
    WORKFLOW_TYPE,
    RequestOutcome,
    WorkspaceSpec,
    WorkspaceStatus,
)
from workflows.workspace.state import Phase

POLL_SECONDS = 0.1
TIMEOUT_SECONDS = 120.0
"""A generation takes a few seconds on an idle machine; one that is busy with everything else may stand still
for longer than that, and retries pause longer each time."""

BOX_SECONDS = 30.0

UPDATE_SECONDS = 400.0
"""The server keeps refusing updates for as long as a stream of signals keeps a run from giving way."""

JSON = dict[str, object]
_T = TypeVar("_T")


class ConditionNotMet(AssertionError):
    """A condition did not become true in time; the text says what was seen last."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Console:
    """One connection to each part of a stack."""

    client: Client
    http: httpx.AsyncClient
    aws: AwsEndpoint
    database_url: str

    def workflow(self, workspace_id: str) -> WorkflowHandle[object, object]:
        """The workspace's workflow, whichever run is current."""
        return self.client.get_workflow_handle(workspace_id)

    async def start(self, workspace_id: str, spec: WorkspaceSpec | None = None) -> None:
        """Make the workspace exist."""
        await self.client.start_workflow(
            WORKFLOW_TYPE, spec or WorkspaceSpec(), id=workspace_id, task_queue=TASK_QUEUE
        )

    async def signal(self, workspace_id: str, name: str = "recreate", /, **payload: object) -> None:
        """Send a signal with the payload as it is, right or wrong."""
        await self.workflow(workspace_id).signal(name, payload)

    async def ask(
        self, workspace_id: str, name: str = "request_recreate", /, **payload: object
    ) -> RequestOutcome:
        """Run an update, and return its outcome; come again with the same ID where the server says so."""
        update_id = str(uuid4())

        async def once() -> RequestOutcome:
            try:
                outcome: RequestOutcome = await self.workflow(workspace_id).execute_update(
                    name, payload, id=update_id, result_type=RequestOutcome
                )
            except WorkflowUpdateRPCTimeoutOrCancelledError as error:
                if isinstance(error.__cause__, RPCError):
                    raise error.__cause__ from None
                raise  # whoever waited for the answer has given up
            return outcome

        return await _with_retries(once, seconds=UPDATE_SECONDS)

    async def status(self, workspace_id: str) -> WorkspaceStatus:
        """The answer of the status query."""

        async def once() -> WorkspaceStatus:
            status: WorkspaceStatus = await self.workflow(workspace_id).query(
                "status", result_type=WorkspaceStatus
            )
            return status

        return await _with_retries(once)

    async def requests(self, workspace_id: str) -> list[RequestOutcome]:
        """The answer of the requests query: the last 50."""

        async def once() -> list[RequestOutcome]:
            requests: list[RequestOutcome] = await self.workflow(workspace_id).query(
                "requests", result_type=list[RequestOutcome]
            )
            return requests

        return await _with_retries(once)

    async def call(self, method: str, path: str, body: JSON | None = None) -> httpx.Response:
        """What the register API answers to an operator, who insists as its callers are meant to."""
        return await call_with_retries(self.http, method, path, body)

    async def record(self, workspace_id: str) -> JSON:
        """What the register API shows of the workspace."""
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
        """Wait until the workflow says so; `tell` sees every status on the way."""

        async def look() -> WorkspaceStatus:
            status = await self.status(workspace_id)
            if tell is not None:
                tell(status)
            return status

        return await eventually(
            look,
            lambda it: it.phase is phase and generation in (None, it.generation),
            seconds=seconds,
        )

    async def rows(self, query: str, *parameters: object) -> list[JSON]:
        """Look into the database."""
        connection = await psycopg.AsyncConnection.connect(self.database_url, row_factory=dict_row)
        async with connection:
            cursor = await connection.execute(query.encode(), parameters)
            return await cursor.fetchall()

    async def live_tokens(self, workspace_id: str) -> list[JSON]:
        """Generation and state of every token that is not revoked."""
        return await self.rows(
            "SELECT generation, state FROM tokens WHERE workspace_id = %s AND state <> 'revoked'",
            workspace_id,
        )

    async def set_box_mode(self, workspace_id: str, mode: str) -> None:
        """Put the runtime of the current box into a mode: healthy, silent, braindead, lose_token."""
        await self._call_box(workspace_id, "POST", "/_control", {"mode": mode})

    async def write_data(self, workspace_id: str, name: str, text: str) -> None:
        """Have the runtime of the current box write a file on the data volume."""
        await self._call_box(workspace_id, "POST", f"/_data/{name}", {"text": text})

    async def read_data(self, workspace_id: str, name: str) -> str:
        """Have the runtime of the current box read one."""
        answer = await self._call_box(workspace_id, "GET", f"/_data/{name}")
        return str(answer["text"])

    async def _call_box(self, workspace_id: str, method: str, path: str, body: JSON | None = None) -> JSON:
        """Call it again until it answers: each of these calls may be made twice."""

        async def once() -> httpx.Response | None:
            record = await self.record(workspace_id)
            if not record["url"] or record["private_ip"] is None:
                return None  # its registration is on the way to the record
            port = urlsplit(str(record["url"])).port
            try:
                async with httpx.AsyncClient(timeout=BOX_SECONDS, trust_env=False) as http:
                    url = f"http://{record['private_ip']}:{port}{path}"
                    return await http.request(method, url, json=body)
            except httpx.TransportError:
                return None

        answer = await eventually(once, lambda seen: seen is not None)
        assert answer is not None  # noqa: S101 - that was waited for
        answer.raise_for_status()
        return cast("JSON", answer.json())


async def _with_retries(ask: Callable[[], Awaitable[_T]], *, seconds: float = TIMEOUT_SECONDS) -> _T:
    """What Temporal answers, asked again while it says that it cannot answer now."""

    async def once() -> tuple[_T | None, RPCError | None]:
        try:
            return await ask(), None
        except RPCError as error:
            if not _is_retryable(error):
                raise
            return None, error

    answer, _ = await eventually(once, lambda seen: seen[1] is None, seconds=seconds)
    return cast("_T", answer)


def _is_retryable(error: RPCError) -> bool:
    """Whether an update or a query was not answered for a reason that passes."""
    # The run gave way before it had taken it, ten others are in flight, or nobody answered in time.
    if error.status in {
        RPCStatusCode.UNAVAILABLE,
        RPCStatusCode.RESOURCE_EXHAUSTED,
        RPCStatusCode.DEADLINE_EXCEEDED,
        RPCStatusCode.CANCELLED,
    }:
        return True
    # Its run was reset: another one goes on.
    if error.status is RPCStatusCode.NOT_FOUND and "aborted by closing workflow" in error.message:
        return True
    # Three times in a row no worker got to the end of a task in time, or none has asked for one for a while.
    return error.status is RPCStatusCode.FAILED_PRECONDITION and any(
        reason in error.message for reason in ("Workflow Task in failed", "no poller seen")
    )


RETRY_STATUSES = frozenset({408, 502, 503})
"""What the register API, or a balancer before it, answers to whoever is to make the same call again."""


async def call_with_retries(
    http: httpx.AsyncClient, method: str, path: str, body: JSON | None = None
) -> httpx.Response:
    """The register API's answer; the same call again where there is none, or where it asks for that."""

    async def once() -> httpx.Response | httpx.TransportError:
        try:
            return await http.request(method, path, json=body)
        except httpx.TransportError as error:
            return error

    def is_answer(seen: httpx.Response | httpx.TransportError) -> bool:
        return isinstance(seen, httpx.Response) and seen.status_code not in RETRY_STATUSES

    return cast("httpx.Response", await eventually(once, is_answer))


@asynccontextmanager
async def connected(stack: Stack, *, payload_keys: str | None = None) -> AsyncIterator[Console]:
    """Connect to a stack that runs; `payload_keys` are others than its processes have."""
    keys = PayloadKeys.parse(stack.payload_keys if payload_keys is None else payload_keys)
    client = await Client.connect(stack.temporal_address, data_converter=converter(keys))
    headers = {"Authorization": f"Bearer {stack.operator_token}"}
    async with httpx.AsyncClient(base_url=stack.register_api_url, headers=headers, timeout=60) as http:
        with AwsEndpoint(stack.aws_url) as aws:
            yield Console(client=client, http=http, aws=aws, database_url=stack.database_url)


async def eventually(
    poll: Callable[[], Awaitable[_T]],
    is_met: Callable[[_T], bool],
    *,
    seconds: float = TIMEOUT_SECONDS,
) -> _T:
    """Look again and again until it is so; raise `ConditionNotMet` with what was seen last."""
    deadline = time.monotonic() + seconds
    while True:
        seen = await poll()
        if is_met(seen):
            return seen
        if time.monotonic() > deadline:
            raise ConditionNotMet(f"after {seconds:g} s: {seen}")
        await asyncio.sleep(POLL_SECONDS)
