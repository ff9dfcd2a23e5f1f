"""Rollout operations of an admin, and observations of their effect."""

import itertools
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import boto3
from temporalio.client import WorkflowHandle

from devstack.console import TIMEOUT_SECONDS, Console, eventually
from devstack.stack import Stack
from tests.integration.fleet import Fleet
from workflows.rollout.messages import CommandResult, RolloutProgress
from workflows.rollout.rules import Outcome, RolloutState
from workflows.shared.names import ROLLOUT_TYPE, TASK_QUEUE
from workflows.workspace.messages import WorkspaceSpec

IMPATIENT_SECONDS = 12.0
"""A healthy box is up within a second, unless the machine stalls."""


_numbers = itertools.count(1)


@dataclass(frozen=True, kw_only=True)
class Rolls:
    """An admin's operations and observations."""

    console: Console
    stack: Stack
    fleet: Fleet

    async def online(self, number: int, *, impatient: tuple[int, ...] = ()) -> list[str]:
        """Start this many workspaces, each with its first box."""
        prefix = f"fleet{next(_numbers)}"
        names = [f"{prefix}-{each:02}" for each in range(number)]
        for each, name in enumerate(names):
            patience = IMPATIENT_SECONDS if each in impatient else None
            await self.console.start(name, WorkspaceSpec(register_deadline_seconds=patience))

        async def missing() -> int:
            return number - len(await self.available(prefix))

        await eventually(missing, lambda it: it == 0)
        return names

    async def available(self, prefix: str) -> set[str]:
        """Workspaces that are available according to the workspace record, not the rollout."""
        rows = await self.console.rows(
            "SELECT w.workspace_id FROM workspaces w JOIN generations g USING (workspace_id)"
            " JOIN heartbeats b ON b.workspace_id = g.workspace_id AND b.generation = g.generation"
            " WHERE starts_with(w.workspace_id, %s) AND w.phase = 'online' AND g.superseded_at IS NULL"
            " AND b.last_heartbeat_at IS NOT NULL",
            f"{prefix}-",
        )
        return {str(row["workspace_id"]) for row in rows}

    async def generations(self, names: list[str]) -> dict[str, int]:
        rows = await self.console.rows(
            "SELECT workspace_id, generation FROM workspaces WHERE workspace_id = ANY(%s)", names
        )
        return {str(row["workspace_id"]): int(str(row["generation"])) for row in rows}

    @contextmanager
    def on_its_way(self, name: str, generation: int) -> Iterator[None]:
        """Delay the calls of that generation's box until the end of the block."""
        self.fleet.bad.add((name, generation))
        try:
            yield
        finally:
            self.fleet.bad.discard((name, generation))

    async def start(self, **request: object) -> "Rollout":
        rollout_id = f"rollout-{next(_numbers)}"
        request = {"requested_by": "admin:alice"} | request
        handle = await self.console.client.start_workflow(
            ROLLOUT_TYPE, request, id=rollout_id, task_queue=TASK_QUEUE, result_type=RolloutProgress
        )
        return Rollout(id=rollout_id, handle=handle)

    def images(self) -> tuple[str, str]:
        """The configured image, and another one that EC2 knows."""
        settings = self.stack.environment
        ec2 = boto3.client(
            "ec2",
            endpoint_url=settings["AWS_ENDPOINT_URL"],
            region_name=settings["AWS_REGION"],
            aws_access_key_id="devstack",
            aws_secret_access_key="devstack",
        )
        known = sorted(str(image["ImageId"]) for image in ec2.describe_images()["Images"])
        present = settings["BOX_IMAGE_ID"]
        return present, next(image for image in known if image != present)

    async def image_of(self, name: str) -> object:
        """The image of the current box, from its launch request."""
        [row] = await self.console.rows(
            "SELECT l.request ->> 'ImageId' AS image FROM launches l JOIN workspaces w"
            " USING (workspace_id, generation) WHERE workspace_id = %s ORDER BY attempt DESC LIMIT 1",
            name,
        )
        return row["image"]


@dataclass(frozen=True, kw_only=True)
class Rollout:
    id: str
    handle: WorkflowHandle[object, RolloutProgress]

    async def order(self, name: str, **order: object) -> CommandResult:
        order = {"requested_by": "admin:alice"} | order
        taken: CommandResult = await self.handle.execute_update(name, order, result_type=CommandResult)
        return taken

    async def progress(self) -> RolloutProgress:
        progress: RolloutProgress = await self.handle.query("progress", result_type=RolloutProgress)
        return progress

    async def until(self, state: RolloutState, *, seconds: float = TIMEOUT_SECONDS) -> RolloutProgress:
        return await eventually(self.progress, lambda it: it.state is state, seconds=seconds)

    async def until_counts(self, *, seconds: float = TIMEOUT_SECONDS, **counts: int) -> RolloutProgress:
        return await eventually(
            self.progress, lambda it: counts.items() <= told(it.counts).items(), seconds=seconds
        )


def told(counts: Mapping[Outcome, int]) -> dict[str, int]:
    return {str(outcome): number for outcome, number in counts.items()}


def outcomes(progress: RolloutProgress) -> dict[str, Outcome]:
    return {member.workspace_id: member.outcome for member in progress.members}
