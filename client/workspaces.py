"""Starts and controls workspaces through their Temporal workflows.

Updates and queries are retried while the server reports a temporary condition.

    RPCError        the server refused a call for good
    NotReached      a workspace did not reach the awaited phase in time
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar
from uuid import uuid4

from temporalio.client import Client, WorkflowHandle, WorkflowUpdateRPCTimeoutOrCancelledError
from temporalio.service import RPCError, RPCStatusCode

from workflows.shared.names import TASK_QUEUE, WORKFLOW_TYPE
from workflows.workspace.enums import Phase
from workflows.workspace.messages import RequestOutcome, WorkspaceSpec, WorkspaceStatus

POLL_SECONDS = 0.1

TIMEOUT_SECONDS = 120.0
"""A generation takes a few seconds on an idle machine, and longer with retries on a busy one."""

UPDATE_SECONDS = 400.0
"""The server refuses updates while a stream of signals keeps a run from continuing as new."""

TRANSIENT = frozenset(
    {
        RPCStatusCode.UNAVAILABLE,
        RPCStatusCode.RESOURCE_EXHAUSTED,
        RPCStatusCode.DEADLINE_EXCEEDED,
        RPCStatusCode.CANCELLED,
    }
)
"""The run continues as new, has ten updates in progress, or did not answer in time."""

TRANSIENT_FAILED_PRECONDITIONS = ("Workflow Task in failed", "no poller seen")
"""Three consecutive workflow tasks timed out, or no worker has polled for a while."""

T = TypeVar("T")


class NotReached(Exception):
    """A workspace did not reach the awaited phase in time; the message has its last status."""


@dataclass(frozen=True, slots=True)
class Workspaces:
    """The workspaces of one Temporal namespace. Connect the client with `OneboxPlugin`."""

    client: Client

    def workflow(self, workspace_id: str) -> WorkflowHandle[object, object]:
        """A handle for the current run of the workspace's workflow."""
        return self.client.get_workflow_handle(workspace_id)

    async def start(self, workspace_id: str, spec: WorkspaceSpec | None = None) -> None:
        """Create a workspace."""
        await self.client.start_workflow(
            WORKFLOW_TYPE, spec or WorkspaceSpec(), id=workspace_id, task_queue=TASK_QUEUE
        )

    async def signal(self, workspace_id: str, name: str = "recreate", /, **payload: object) -> None:
        """Send a signal; the payload is not validated."""
        await self.workflow(workspace_id).signal(name, payload)

    async def request(
        self, workspace_id: str, name: str = "request_recreate", /, **payload: object
    ) -> RequestOutcome:
        """Send a request as an update and return its outcome; retries use the same update ID."""
        update_id = str(uuid4())

        async def once() -> RequestOutcome:
            try:
                outcome: RequestOutcome = await self.workflow(workspace_id).execute_update(
                    name, payload, id=update_id, result_type=RequestOutcome
                )
            except WorkflowUpdateRPCTimeoutOrCancelledError as error:
                if isinstance(error.__cause__, RPCError):
                    raise error.__cause__ from None
                raise  # the caller was cancelled
            return outcome

        return await with_retries(once, seconds=UPDATE_SECONDS)

    async def status(self, workspace_id: str) -> WorkspaceStatus:
        """The workspace's status."""

        async def once() -> WorkspaceStatus:
            status: WorkspaceStatus = await self.workflow(workspace_id).query(
                "status", result_type=WorkspaceStatus
            )
            return status

        return await with_retries(once)

    async def requests(self, workspace_id: str) -> list[RequestOutcome]:
        """The last 50 requests with their outcomes."""

        async def once() -> list[RequestOutcome]:
            requests: list[RequestOutcome] = await self.workflow(workspace_id).query(
                "requests", result_type=list[RequestOutcome]
            )
            return requests

        return await with_retries(once)

    async def wait_for_phase(
        self,
        workspace_id: str,
        phase: Phase,
        *,
        generation: int | None = None,
        seconds: float = TIMEOUT_SECONDS,
        on_status: Callable[[WorkspaceStatus], None] | None = None,
    ) -> WorkspaceStatus:
        """Poll until the workspace is in the phase, and in the generation if one is given.

        Calls `on_status` with each status. Raises `NotReached` after `seconds`.
        """
        deadline = time.monotonic() + seconds
        while True:
            status = await self.status(workspace_id)
            if on_status is not None:
                on_status(status)
            if status.phase is phase and generation in (None, status.generation):
                return status
            if time.monotonic() > deadline:
                raise NotReached(f"{workspace_id} is not {phase} after {seconds:g} s: {status}")
            await asyncio.sleep(POLL_SECONDS)


async def with_retries(call: Callable[[], Awaitable[T]], *, seconds: float = TIMEOUT_SECONDS) -> T:
    """The result of a call, repeated while it fails with a transient error. Raises `RPCError`."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            return await call()
        except RPCError as error:
            if not is_transient(error) or time.monotonic() > deadline:
                raise
        await asyncio.sleep(POLL_SECONDS)


def is_transient(error: RPCError) -> bool:
    """Whether an update or query may succeed when it is repeated."""
    if error.status in TRANSIENT:
        return True
    # The run was reset, and another run continues the workflow.
    if error.status is RPCStatusCode.NOT_FOUND and "aborted by closing workflow" in error.message:
        return True
    return error.status is RPCStatusCode.FAILED_PRECONDITION and any(
        reason in error.message for reason in TRANSIENT_FAILED_PRECONDITIONS
    )
