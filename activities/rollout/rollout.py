"""Fleet rollouts: write the plan, request recreates of members, and watch all members with one query.

`workflows.rollout.rules` decides which members start and when one is done. Each workspace's workflow decides
on its request.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import structlog
from temporalio import activity
from temporalio.client import (
    Client,
    WorkflowUpdateFailedError,
    WorkflowUpdateRPCTimeoutOrCancelledError,
)
from temporalio.service import RPCError, RPCStatusCode

from activities.shared import application_errors
from activities.shared.activity_context import activity_context
from store.db.pool import Connection, Pool, connection
from store.rollout import rollouts
from store.rollout.rollouts import MemberStatus
from workflows.rollout import rules
from workflows.rollout.contract import MembersStarted, PlanRollout, RolloutPlanned, StartMembers, WatchRollout
from workflows.rollout.messages import MAX_MEMBERS
from workflows.rollout.rules import Member, MemberState, Outcome, Survey
from workflows.shared.names import WORKFLOW_TYPE
from workflows.workspace.enums import Intent, Phase, Step
from workflows.workspace.messages import RequestOutcome
from workflows.workspace.requests import OutcomeKind

FleetFrozen = Callable[[], Awaitable[str | None]]
"""Why no further members may start, by the state of the fleet; None if they may."""

CONCURRENCY = 20
"""Maximum number of concurrent updates."""

UPDATE_TIMEOUT = timedelta(seconds=20)
"""An update takes milliseconds. After a timeout the request may still be accepted: the member is watched."""

POLL_INTERVAL = timedelta(seconds=0.5)
IDLE_POLL_INTERVAL = timedelta(seconds=5)
"""Each poll is one query over all members."""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollouts:
    """Needs PostgreSQL, and the worker's Temporal client to reach the workspaces."""

    pool: Pool
    heartbeat_stale: timedelta
    fleet_frozen: FleetFrozen

    @activity.defn(name="plan_rollout")
    async def plan_rollout(self, request: PlanRollout) -> RolloutPlanned:
        """Choose the members by name, by query, or all; store them. Fails if a named workspace is unknown."""
        async with activity_context(request.rollout_id, kind="rollout"):
            listed = await _list_workspaces(activity.client(), request.query) if request.query else None
            async with connection(self.pool) as conn, conn.transaction():
                members = await rollouts.members(conn, request.rollout_id)
                if members is None:
                    chosen = await _choose(conn, request, listed)
                    members = await rollouts.write_plan(
                        conn,
                        request.rollout_id,
                        requested_by=request.requested_by,
                        reason=request.reason,
                        image_id=request.image_id,
                        workspaces=chosen,
                    )
            await log.ainfo("rollout.planned", members=len(members), image=request.image_id)
            return RolloutPlanned(workspaces=tuple(members))

    @activity.defn(name="start_members")
    async def start_members(self, request: StartMembers) -> MembersStarted:
        """Send `request_recreate` to each member, with a request ID from the rollout ID and the try."""
        async with activity_context(request.rollout_id, kind="rollout"):
            client, slots = activity.client(), asyncio.Semaphore(CONCURRENCY)

            async def start(member: Member) -> Member:
                async with slots:
                    result = await self._start_member(client, request, member)
                await log.ainfo(
                    "rollout.member_decided",
                    workspace=result.workspace_id,
                    outcome=result.outcome,
                    awaited=result.generation,
                )
                return result

            # Wait for all: after one failure, the others must not run on unobserved.
            results = await asyncio.gather(*map(start, request.members), return_exceptions=True)
            for result in results:
                if isinstance(result, BaseException):
                    raise result
            return MembersStarted(members=tuple(result for result in results if isinstance(result, Member)))

    @activity.defn(name="watch_rollout")
    async def watch_rollout(self, request: WatchRollout) -> Survey:
        """Poll all members until one changes or the time is over. Read-only."""
        async with activity_context(request.rollout_id, kind="rollout"):
            until = time.monotonic() + request.seconds
            while True:
                survey = await self._survey(request)
                if _is_change(request, survey) or time.monotonic() >= until:
                    return survey
                pause = POLL_INTERVAL if rules.in_flight(request.snapshot) else IDLE_POLL_INTERVAL
                await asyncio.sleep(min(pause.total_seconds(), max(0.0, until - time.monotonic())))

    async def _survey(self, request: WatchRollout) -> Survey:
        followed = {member.workspace_id for member in request.snapshot.members}
        async with connection(self.pool) as conn:
            rows = await rollouts.member_statuses(
                conn, request.rollout_id, heartbeat_fresh_for=self.heartbeat_stale
            )
        blocked_reason = await self.fleet_frozen()
        return Survey(
            seen=tuple(member_state(row) for row in rows if row.workspace_id in followed),
            down=frozenset(row.workspace_id for row in rows if _is_down(row)),
            blocked_reason=blocked_reason,
        )

    async def _start_member(self, client: Client, request: StartMembers, member: Member) -> Member:
        started = replace(member, request_count=member.request_count + 1, attempts=member.attempts + 1)
        request_id = f"{request.rollout_id}/{started.request_count}"
        async with connection(self.pool) as conn, conn.transaction():
            status = await rollouts.member_status(
                conn, member.workspace_id, heartbeat_fresh_for=self.heartbeat_stale
            )
            if status is None or status.deleted or status.intent == Intent.DELETE:
                return replace(started, outcome=Outcome.SKIPPED, detail="it is deleted")
            if request.image_id is not None and not await rollouts.set_image(
                conn, member.workspace_id, rollout_id=request.rollout_id, image_id=request.image_id
            ):
                return replace(started, outcome=Outcome.SKIPPED, detail="a later rollout has set its image")
            before = await rollouts.has_outcome(conn, member.workspace_id, request_id)
        if status.intent == Intent.STOP:
            consequence = "its next box gets the image" if request.image_id else "it has no box"
            return replace(started, outcome=Outcome.SKIPPED, detail=f"stopped by intent: {consequence}")
        if not before and (settled := _already_done(started, status, request.image_id)):
            return settled
        return await _request(client, request, started, status, request_id)


def member_state(row: MemberStatus) -> MemberState:
    """The member's record as input of the rules."""
    return MemberState(
        workspace_id=row.workspace_id,
        generation=row.generation,
        intent=Intent(row.intent),
        deleted=row.deleted,
        phase=Phase(row.phase),
        available=row.available,
        image_id=row.image_id,
        error=row.error or "",
        error_phase=Step(row.error_phase) if row.error_phase else None,
        error_generation=row.error_generation or 0,
        error_refused=row.error_refused or False,
    )


def _is_down(row: MemberStatus) -> bool:
    return not row.available and row.intent == Intent.RUN and not row.deleted


def _is_change(request: WatchRollout, survey: Survey) -> bool:
    """Whether the survey changes the rollout, other than in counts."""
    before = request.snapshot
    after = rules.apply_survey(before, survey, datetime.now(UTC))
    if after.members != before.members:
        return True
    room = survey.blocked_reason is None and len(rules.unavailable(after)) < before.allowed
    return (request.wants_capacity and room) or (
        survey.blocked_reason != before.blocked_reason and not rules.in_flight(before)
    )


async def _choose(conn: Connection, request: PlanRollout, listed: list[str] | None) -> list[str]:
    if request.workspaces:
        known = await rollouts.existing(conn, request.workspaces)
        if unknown := [each for each in request.workspaces if each not in known]:
            raise application_errors.non_retryable(
                "unknown_workspaces",
                f"{len(unknown)} of {len(request.workspaces)} do not exist: {', '.join(unknown[:20])}",
                hint="Start a new rollout with the IDs of existing workspaces.",
            )
        chosen = list(request.workspaces)
    elif listed is not None:
        known = await rollouts.existing(conn, listed)
        chosen = sorted(known)
    else:
        chosen = await rollouts.all_workspaces(conn)
    if len(chosen) > MAX_MEMBERS:
        raise application_errors.non_retryable(
            "too_many_members",
            f"{len(chosen)} workspaces exceed the maximum of {MAX_MEMBERS} per rollout",
            hint="Split the fleet into several rollouts, by query or by name.",
        )
    return chosen


async def _list_workspaces(client: Client, query: str) -> list[str]:
    """The workspaces that match a list filter. Temporal's visibility store may lag by seconds."""
    whole = f"WorkflowType = '{WORKFLOW_TYPE}' AND ExecutionStatus = 'Running' AND ({query})"
    try:
        return [
            each.id
            async for each in client.list_workflows(whole, limit=MAX_MEMBERS + 1)
            if each.workflow_type == WORKFLOW_TYPE
        ]
    except RPCError as error:
        if error.status is RPCStatusCode.INVALID_ARGUMENT:
            raise application_errors.non_retryable(
                "invalid_query",
                f"Temporal rejected the query: {error.message}",
                hint="Test it with `temporal workflow list --query`, then start a new rollout.",
            ) from None
        raise _unreachable(error) from None


def _already_done(started: Member, status: MemberStatus, image_id: str | None) -> Member | None:
    """The member as done, if it has the image already or an earlier request succeeded late."""
    if not status.available or (image_id is not None and status.image_id != image_id):
        return None
    if 0 < started.generation <= status.generation:
        return replace(
            started,
            outcome=Outcome.RECREATED,
            generation=status.generation,
            detail="it came online after its deadline",
        )
    if image_id is None:
        return None
    return replace(
        started, outcome=Outcome.UNNEEDED, generation=status.generation, detail="online with the image"
    )


async def _request(
    client: Client, request: StartMembers, started: Member, status: MemberStatus, request_id: str
) -> Member:
    payload = {
        "reason": request.reason,
        "requested_by": request.requested_by,
        "observed_generation": status.generation,
        "request_id": request_id,
        # A generation that AWS refuses keeps its image: joining it would not bring another one.
        "force": request.force or status.error_refused or False,
    }
    try:
        async with asyncio.timeout(UPDATE_TIMEOUT.total_seconds()):
            outcome: RequestOutcome = await client.get_workflow_handle(started.workspace_id).execute_update(
                "request_recreate", payload, id=request_id, result_type=RequestOutcome
            )
    except (TimeoutError, WorkflowUpdateRPCTimeoutOrCancelledError):
        return replace(
            started,
            outcome=Outcome.IN_FLIGHT,
            generation=status.generation + 1,
            detail="no response to the request; it may still be accepted",
        )
    except WorkflowUpdateFailedError as error:
        return replace(started, outcome=Outcome.FAILED, detail=f"the request failed: {error.cause}")
    except RPCError as error:
        # If the run is reset meanwhile, the server aborts the update; the workflow continues in a new run.
        if error.status is RPCStatusCode.NOT_FOUND and "aborted" not in error.message:
            return replace(
                started, outcome=Outcome.FAILED, detail="its workflow is not running: start it, then retry"
            )
        raise _unreachable(error) from None
    return _apply_outcome(started, outcome)


def _apply_outcome(started: Member, outcome: RequestOutcome) -> Member:
    match outcome.outcome:
        case OutcomeKind.ACCEPTED | OutcomeKind.JOINED | OutcomeKind.STALE:
            # Joined or stale: another recreate came first, and its result counts for this member.
            return replace(
                started, outcome=Outcome.IN_FLIGHT, generation=outcome.generation, detail=outcome.detail
            )
        case OutcomeKind.DEFERRED | OutcomeKind.REJECTED:
            return replace(started, outcome=Outcome.FAILED, detail=f"{outcome.outcome}: {outcome.detail}")


def _unreachable(error: RPCError) -> Exception:
    return application_errors.retryable(
        "temporal_unavailable",
        f"Temporal does not respond ({error.status.name.lower()})",
        hint="Check that the Temporal server runs. The call is retried automatically.",
    )
