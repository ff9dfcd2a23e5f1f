"""Fleet rolls: making the plan, giving members their turn, and watching all of them at once.

Whose turn it is, and what counts as done, is `workflows.rollout.rules`'s; each workspace's own workflow
decides what
becomes of the request.
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
from workflows.workspace.messages import WORKFLOW_TYPE, RequestOutcome
from workflows.workspace.requests import OutcomeKind
from workflows.workspace.state import Intent, Phase, Step

FleetFrozen = Callable[[], Awaitable[str | None]]
"""Why nothing new may begin now, by the state of the whole fleet; None if it may."""

CONCURRENCY = 20
"""So many workspaces are asked side by side."""

UPDATE_TIMEOUT = timedelta(seconds=20)
"""An update is answered in milliseconds. Without an answer the request may still be taken: it is watched."""

POLL_INTERVAL = timedelta(seconds=0.5)
IDLE_POLL_INTERVAL = timedelta(seconds=5)
"""One query over all members each time."""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollouts:
    """Needs PostgreSQL; the workspaces are reached by the worker's own Temporal client."""

    pool: Pool
    heartbeat_stale: timedelta
    fleet_frozen: FleetFrozen

    @activity.defn(name="plan_rollout")
    async def plan_rollout(self, request: PlanRollout) -> RolloutPlanned:
        """From the database if nothing is chosen; a list that fails, or names what is unknown, is no plan."""
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
        """Run `request_recreate` on each, under a request ID made of the rollout and the try."""
        async with activity_context(request.rollout_id, kind="rollout"):
            client, places = activity.client(), asyncio.Semaphore(CONCURRENCY)

            async def take(member: Member) -> Member:
                async with places:
                    taken = await self._take_turn(client, request, member)
                await log.ainfo(
                    "rollout.member_decided",
                    workspace=taken.workspace_id,
                    outcome=taken.outcome,
                    awaited=taken.generation,
                )
                return taken

            # All to their end: a turn that fails must not leave others behind that go on unseen.
            turns = await asyncio.gather(*map(take, request.members), return_exceptions=True)
            for turn in turns:
                if isinstance(turn, BaseException):
                    raise turn
            return MembersStarted(members=tuple(turn for turn in turns if isinstance(turn, Member)))

    @activity.defn(name="watch_rollout")
    async def watch_rollout(self, request: WatchRollout) -> Survey:
        """One query for all members, again and again; changes nothing."""
        async with activity_context(request.rollout_id, kind="rollout"):
            until = time.monotonic() + request.seconds
            while True:
                survey = await self._survey(request)
                if _is_news(request, survey) or time.monotonic() >= until:
                    return survey
                pause = POLL_INTERVAL if rules.in_flight(request.snapshot) else IDLE_POLL_INTERVAL
                await asyncio.sleep(min(pause.total_seconds(), max(0.0, until - time.monotonic())))

    async def _survey(self, request: WatchRollout) -> Survey:
        followed = {member.workspace_id for member in request.snapshot.members}
        async with connection(self.pool) as conn:
            rows = await rollouts.member_statuses(
                conn, request.rollout_id, heartbeat_fresh_for=self.heartbeat_stale
            )
        held = await self.fleet_frozen()
        return Survey(
            seen=tuple(seen_of(row) for row in rows if row.workspace_id in followed),
            down=frozenset(row.workspace_id for row in rows if _is_down(row)),
            blocked_reason=held,
        )

    async def _take_turn(self, client: Client, request: StartMembers, member: Member) -> Member:
        asking = replace(member, request_count=member.request_count + 1, attempts=member.attempts + 1)
        request_id = f"{request.rollout_id}/{asking.request_count}"
        async with connection(self.pool) as conn, conn.transaction():
            standing = await rollouts.member_status(
                conn, member.workspace_id, heartbeat_fresh_for=self.heartbeat_stale
            )
            if standing is None or standing.deleted or standing.intent == Intent.DELETE:
                return replace(asking, outcome=Outcome.SKIPPED, detail="it is deleted")
            if request.image_id is not None and not await rollouts.set_image(
                conn, member.workspace_id, rollout_id=request.rollout_id, image_id=request.image_id
            ):
                return replace(asking, outcome=Outcome.SKIPPED, detail="a later rollout gave it an image")
            before = await rollouts.has_outcome(conn, member.workspace_id, request_id)
        if standing.intent == Intent.STOP:
            what = "its next box has the image" if request.image_id else "it has no box"
            return replace(asking, outcome=Outcome.SKIPPED, detail=f"stopped by intent: {what}")
        if not before and (settled := _already_done(asking, standing, request.image_id)):
            return settled
        return await _request(client, request, asking, standing, request_id)


def seen_of(row: MemberStatus) -> MemberState:
    """What the rules want to know of a member's record."""
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
    )


def _is_down(row: MemberStatus) -> bool:
    return not row.available and row.intent == Intent.RUN and not row.deleted


def _is_news(request: WatchRollout, survey: Survey) -> bool:
    """Whether the rollout would change by it, other than in figures."""
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
                f"{len(unknown)} of {len(request.workspaces)} are unknown: {', '.join(unknown[:20])}",
                hint="Start the rollout anew with the IDs of workspaces that exist.",
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
            f"{len(chosen)} workspaces are more than the {MAX_MEMBERS} that one rollout takes",
            hint="Roll the fleet in parts, by query or by name.",
        )
    return chosen


async def _list_workspaces(client: Client, query: str) -> list[str]:
    """The workspaces that a list filter matches; visibility may be some seconds late."""
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
                f"the query cannot be used: {error.message}",
                hint="Try it with `temporal workflow list --query`, then start the rollout anew.",
            ) from None
        raise _unreachable(error) from None


def _already_done(asking: Member, standing: MemberStatus, image_id: str | None) -> Member | None:
    """Whether the member needs no other box: by the image, or because an earlier try came through late."""
    if not standing.available or (image_id is not None and standing.image_id != image_id):
        return None
    if 0 < asking.generation <= standing.generation:
        return replace(
            asking, outcome=Outcome.RECREATED, generation=standing.generation, detail="it came online late"
        )
    if image_id is None:
        return None
    return replace(
        asking, outcome=Outcome.UNNEEDED, generation=standing.generation, detail="online with the image"
    )


async def _request(
    client: Client, request: StartMembers, asking: Member, standing: MemberStatus, request_id: str
) -> Member:
    payload = {
        "reason": request.reason,
        "requested_by": request.requested_by,
        "observed_generation": standing.generation,
        "request_id": request_id,
        "force": request.force,
    }
    try:
        async with asyncio.timeout(UPDATE_TIMEOUT.total_seconds()):
            outcome: RequestOutcome = await client.get_workflow_handle(asking.workspace_id).execute_update(
                "request_recreate", payload, id=request_id, result_type=RequestOutcome
            )
    except (TimeoutError, WorkflowUpdateRPCTimeoutOrCancelledError):
        return replace(
            asking,
            outcome=Outcome.IN_FLIGHT,
            generation=standing.generation + 1,
            detail="the request was not answered; it may still be taken",
        )
    except WorkflowUpdateFailedError as error:
        return replace(asking, outcome=Outcome.FAILED, detail=f"the request failed: {error.cause}")
    except RPCError as error:
        # Of a run that was reset meanwhile, the server says that the update was aborted: another run goes on.
        if error.status is RPCStatusCode.NOT_FOUND and "aborted" not in error.message:
            return replace(
                asking, outcome=Outcome.FAILED, detail="its workflow does not run: start it, then retry"
            )
        raise _unreachable(error) from None
    return _apply_outcome(asking, outcome)


def _apply_outcome(asking: Member, outcome: RequestOutcome) -> Member:
    match outcome.outcome:
        case OutcomeKind.ACCEPTED | OutcomeKind.JOINED | OutcomeKind.STALE:
            # Joined or stale: somebody else's recreate came first, and the member counts by its result.
            return replace(
                asking, outcome=Outcome.IN_FLIGHT, generation=outcome.generation, detail=outcome.detail
            )
        case OutcomeKind.DEFERRED | OutcomeKind.REJECTED:
            return replace(asking, outcome=Outcome.FAILED, detail=f"{outcome.outcome}: {outcome.detail}")


def _unreachable(error: RPCError) -> Exception:
    return application_errors.retryable(
        "temporal_unavailable",
        f"Temporal does not answer ({error.status.name.lower()})",
        hint="See whether the Temporal server runs; it is tried again by itself.",
    )
