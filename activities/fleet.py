"""Leave for automatic recreates, and the watchdog's round: what is wrong, and whom to ask for another box.

Whether the fleet allows it is judged in `workflows.fleet`; what becomes of a request, by its workflow.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING

import structlog
from botocore.exceptions import BotoCoreError, ClientError
from temporalio import activity
from temporalio.service import RPCError

from activities import aws_codes
from activities.aws import Aws
from activities.execution import execution
from activities.ports import Consulted, ConsultFleet, Watch, Watched
from store import fleet, looks, watching
from store.pool import Connection, Pool, connection
from store.watching import Finding, Patience
from workflows.fleet import BUSY_FOR, FROZEN_FOR, FleetFigures, FleetPolicy, FleetVerdict, judge
from workflows.messages import TASK_QUEUE, WORKFLOW_TYPE
from workflows.own_requests import REQUESTER

if TYPE_CHECKING:
    from mypy_boto3_ec2 import EC2Client

WATCHDOG = "watchdog"
"""Who asks."""

READABLE_FOR = timedelta(seconds=5)
"""A look at EC2 serves all that ask within it: a thousand must not become a thousand calls."""

SIGNAL_TIMEOUT = timedelta(seconds=5)

_WHY = {
    "silent": "its box is silent",
    "credential_lost": "its box beats without a live token",
    "not_processing": "its agent does not process what it is given",
    "unregistered": "its box has not registered in time",
}

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetConfig:
    """What the worker's settings say of the fleet."""

    policy: FleetPolicy = field(default_factory=FleetPolicy)
    patience: Patience = field(default_factory=Patience)


class Fleet:
    """Needs PostgreSQL, and EC2 to see whether it can be read."""

    def __init__(self, *, aws: Aws, pool: Pool, config: FleetConfig) -> None:
        self._aws = aws
        self._pool = pool
        self._config = config
        self._looking = asyncio.Lock()
        self._looked: tuple[float, str | None] | None = None

    @activity.defn(name="consult_fleet")
    async def consult_fleet(self, request: ConsultFleet) -> Consulted:
        """Judge the fleet, and take one of the places of automatic recreates; a retry finds its own."""
        workspace_id = request.workspace_id
        async with execution(workspace_id):
            word = await self._consulted(request)
            await log.ainfo("fleet.consulted", granted=word.granted, frozen=word.frozen, reason=word.reason)
            return word

    async def frozen(self) -> str | None:
        """Why a roll begins nothing new now; None if it may. Places are for automatic requests only."""
        unreadable = await self._unreadable()
        if unreadable is not None:
            return unreadable
        async with connection(self._pool) as conn:
            _, verdict = await self._judged(conn)
            return verdict.frozen

    async def _consulted(self, request: ConsultFleet) -> Consulted:
        unreadable = await self._unreadable()
        if unreadable is not None:
            return Consulted(granted=False, frozen=True, reason=unreadable, retry_after=FROZEN_FOR)
        async with connection(self._pool) as conn, conn.transaction():
            await fleet.hold(conn)
            figures, verdict = await self._judged(conn, but=request.workspace_id)
            if verdict.frozen is not None:
                return Consulted(granted=False, frozen=True, reason=verdict.frozen, retry_after=FROZEN_FOR)
            if verdict.free == 0:
                reason = f"{figures.recreating} automatic recreates are under way, as many as may be at once"
                return Consulted(granted=False, reason=reason, retry_after=BUSY_FOR)
            await fleet.take_place(conn, request.workspace_id, generation=request.generation)
            return Consulted(granted=True)

    @activity.defn(name="watch")
    async def watch(self, request: Watch) -> Watched:  # noqa: ARG002 - one request type for each activity
        """Find what is wrong, and ask for other boxes: once for each cause, never more than may begin."""
        async with execution(WATCHDOG):
            watched, findings = await self._looked_round()
            asked = await asyncio.gather(*map(_ask, findings))
            await log.ainfo("fleet.watched", frozen=watched.frozen, asked=sum(asked), waiting=watched.waiting)
            return watched

    async def _looked_round(self) -> tuple[Watched, Sequence[Finding]]:
        unreadable = await self._unreadable()
        async with connection(self._pool) as conn, conn.transaction():
            figures, verdict = await self._judged(conn)
            frozen, findings = unreadable or verdict.frozen, list[Finding]()
            if frozen is None and verdict.free:
                findings = await watching.find(
                    conn, patience=self._config.patience, lifecycle=REQUESTER, limit=verdict.free
                )
                await watching.note_asks(conn, findings)
            await looks.note_watchdog(conn, frozen=frozen)
        watched = Watched(
            running=figures.running,
            stale=figures.stale,
            recreating=figures.recreating,
            concurrent=verdict.concurrent,
            frozen=frozen,
            asked=tuple(each.workspace_id for each in findings),
            waiting=findings[0].total - len(findings) if findings else 0,
        )
        return watched, findings

    async def _judged(self, conn: Connection, *, but: str | None = None) -> tuple[FleetFigures, FleetVerdict]:
        """Count and judge; whoever sees too many stale at once remembers it for all."""
        figures = await fleet.figures(conn, but=but)
        verdict = judge(figures, self._config.policy)
        if verdict.many_stale:
            await fleet.note_many_stale(conn)
        return figures, verdict

    async def _unreadable(self) -> str | None:
        """Why EC2 cannot be read; None if it can. Asked once for all that want to know within seconds."""
        async with self._looking:
            now = asyncio.get_running_loop().time()
            if self._looked is None or now - self._looked[0] > READABLE_FOR.total_seconds():
                self._looked = (now, await self._look())
            return self._looked[1]

    async def _look(self) -> str | None:
        try:
            await self._aws.call(_describe_some, self._aws.ec2)
        except ClientError as error:
            return f"EC2 cannot be read: {aws_codes.code_of(error)}"
        except BotoCoreError as error:
            return f"EC2 cannot be reached: {type(error).__name__}"
        return None


async def _ask(finding: Finding) -> bool:
    """Signal the workflow, or start it: one that was terminated resumes the generation on the record."""
    message = {
        "reason": f"{_WHY[finding.cause]} since {finding.since:%Y-%m-%d %H:%M:%S} UTC",
        "requested_by": WATCHDOG,
        "observed_generation": finding.generation,
        "request_id": finding.request_id,
    }
    try:
        await activity.client().start_workflow(
            WORKFLOW_TYPE,
            id=finding.workspace_id,
            task_queue=TASK_QUEUE,
            start_signal="recreate",
            start_signal_args=[message],
            static_summary=f"workspace {finding.workspace_id}",
            rpc_timeout=SIGNAL_TIMEOUT,
        )
    except RPCError as error:
        # Noted as asked for: without an outcome it is asked for again.
        await log.awarning("watchdog.refused", workspace=finding.workspace_id, error=error.message)
        return False
    await log.ainfo("watchdog.asked", workspace=finding.workspace_id, cause=finding.cause)
    return True


def _describe_some(ec2: "EC2Client") -> None:
    ec2.describe_instances(MaxResults=5)
