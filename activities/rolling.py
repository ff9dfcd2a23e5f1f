"""Fleet rolls: making the plan, giving members their turn, and watching all of them at once.

Whose turn it is, and what counts as done, is `workflows.roll`'s; each workspace's own workflow decides what
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

from activities import failures
from activities.execution import execution
from activities.roll_ports import PlanRoll, RollPlanned, TakeTurns, TurnsTaken, WatchRoll
from store import rolls
from store.pool import Connection, Pool, connection
from store.rolls import Standing
from workflows import roll as rules
from workflows.messages import WORKFLOW_TYPE, RequestOutcome
from workflows.requests import OutcomeKind
from workflows.roll import Member, Outcome, Seen, Survey
from workflows.roll_messages import MOST_MEMBERS
from workflows.state import Intent, Phase, Step

FleetHeld = Callable[[], Awaitable[str | None]]
"""Why nothing new may begin now, by the state of the whole fleet; None if it may."""

AT_ONCE = 20
"""So many workspaces are asked side by side."""

ANSWER_WITHIN = timedelta(seconds=20)
"""An update is answered in milliseconds. Without an answer the request may still be taken: it is watched."""

POLL = timedelta(seconds=0.5)
POLL_FOR_ROOM = timedelta(seconds=5)
"""One query over all members each time."""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Rolling:
    """Needs PostgreSQL; the workspaces are reached by the worker's own Temporal client."""

    pool: Pool
    heartbeat_stale: timedelta
    held: FleetHeld

    @activity.defn(name="plan_roll")
    async def plan_roll(self, request: PlanRoll) -> RollPlanned:
        """From the database if nothing is chosen; a list that fails, or names what is unknown, is no plan."""
        async with execution(request.roll, kind="roll"):
            listed = await _listed(activity.client(), request.query) if request.query else None
            async with connection(self.pool) as conn, conn.transaction():
                members = await rolls.members(conn, request.roll)
                if members is None:
                    chosen = await _chosen(conn, request, listed)
                    members = await rolls.write_plan(
                        conn,
                        request.roll,
                        requested_by=request.requested_by,
                        reason=request.reason,
                        image_id=request.image_id,
                        workspaces=chosen,
                    )
            await log.ainfo("roll.planned", members=len(members), image=request.image_id)
            return RollPlanned(workspaces=tuple(members))

    @activity.defn(name="take_turns")
    async def take_turns(self, request: TakeTurns) -> TurnsTaken:
        """Run `request_recreate` on each, under a request ID made of the roll and the try."""
        async with execution(request.roll, kind="roll"):
            client, places = activity.client(), asyncio.Semaphore(AT_ONCE)

            async def take(member: Member) -> Member:
                async with places:
                    taken = await self._take(client, request, member)
                await log.ainfo(
                    "roll.turn", workspace=taken.workspace_id, outcome=taken.outcome, awaited=taken.generation
                )
                return taken

            # All to their end: a turn that fails must not leave others behind that go on unseen.
            turns = await asyncio.gather(*map(take, request.members), return_exceptions=True)
            for turn in turns:
                if isinstance(turn, BaseException):
                    raise turn
            return TurnsTaken(members=tuple(turn for turn in turns if isinstance(turn, Member)))

    @activity.defn(name="watch_roll")
    async def watch_roll(self, request: WatchRoll) -> Survey:
        """One query for all members, again and again; changes nothing."""
        async with execution(request.roll, kind="roll"):
            until = time.monotonic() + request.seconds
            while True:
                survey = await self._survey(request)
                if _is_news(request, survey) or time.monotonic() >= until:
                    return survey
                pause = POLL if rules.flying(request.standing) else POLL_FOR_ROOM
                await asyncio.sleep(min(pause.total_seconds(), max(0.0, until - time.monotonic())))

    async def _survey(self, request: WatchRoll) -> Survey:
        followed = {member.workspace_id for member in request.standing.members}
        async with connection(self.pool) as conn:
            rows = await rolls.standings(conn, request.roll, beat_fresh_for=self.heartbeat_stale)
        held = await self.held()
        return Survey(
            seen=tuple(seen_of(row) for row in rows if row.workspace_id in followed),
            down=frozenset(row.workspace_id for row in rows if _is_down(row)),
            held=held,
        )

    async def _take(self, client: Client, request: TakeTurns, member: Member) -> Member:
        asking = replace(member, asked=member.asked + 1, tries=member.tries + 1)
        request_id = f"{request.roll}/{asking.asked}"
        async with connection(self.pool) as conn, conn.transaction():
            standing = await rolls.standing(conn, member.workspace_id, beat_fresh_for=self.heartbeat_stale)
            if standing is None or standing.deleted or standing.intent == Intent.DELETE:
                return replace(asking, outcome=Outcome.SKIPPED, detail="it is deleted")
            if request.image_id is not None and not await rolls.give_image(
                conn, member.workspace_id, roll=request.roll, image_id=request.image_id
            ):
                return replace(asking, outcome=Outcome.SKIPPED, detail="a later roll gave it an image")
            before = await rolls.was_asked(conn, member.workspace_id, request_id)
        if standing.intent == Intent.STOP:
            what = "its next box has the image" if request.image_id else "it has no box"
            return replace(asking, outcome=Outcome.SKIPPED, detail=f"stopped by intent: {what}")
        if not before and (settled := _settled_already(asking, standing, request.image_id)):
            return settled
        return await _asked(client, request, asking, standing, request_id)


def seen_of(row: Standing) -> Seen:
    """What the rules want to know of a member's record."""
    return Seen(
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


def _is_down(row: Standing) -> bool:
    return not row.available and row.intent == Intent.RUN and not row.deleted


def _is_news(request: WatchRoll, survey: Survey) -> bool:
    """Whether the roll would change by it, other than in figures."""
    before = request.standing
    after = rules.surveyed(before, survey, datetime.now(UTC))
    if after.members != before.members:
        return True
    room = survey.held is None and len(rules.unavailable(after)) < before.allowed
    return (request.wants_room and room) or (survey.held != before.held and not rules.flying(before))


async def _chosen(conn: Connection, request: PlanRoll, listed: list[str] | None) -> list[str]:
    if request.workspaces:
        known = await rolls.known(conn, request.workspaces)
        if unknown := [each for each in request.workspaces if each not in known]:
            raise failures.give_up(
                "unknown_workspaces",
                f"{len(unknown)} of {len(request.workspaces)} are unknown: {', '.join(unknown[:20])}",
                hint="Start the roll anew with the IDs of workspaces that exist.",
            )
        chosen = list(request.workspaces)
    elif listed is not None:
        known = await rolls.known(conn, listed)
        chosen = sorted(known)
    else:
        chosen = await rolls.all_workspaces(conn)
    if len(chosen) > MOST_MEMBERS:
        raise failures.give_up(
            "too_many_members",
            f"{len(chosen)} workspaces are more than the {MOST_MEMBERS} that one roll takes",
            hint="Roll the fleet in parts, by query or by name.",
        )
    return chosen


async def _listed(client: Client, query: str) -> list[str]:
    """The workspaces that a list filter matches; visibility may be some seconds late."""
    whole = f"WorkflowType = '{WORKFLOW_TYPE}' AND ExecutionStatus = 'Running' AND ({query})"
    try:
        return [
            each.id
            async for each in client.list_workflows(whole, limit=MOST_MEMBERS + 1)
            if each.workflow_type == WORKFLOW_TYPE
        ]
    except RPCError as error:
        if error.status is RPCStatusCode.INVALID_ARGUMENT:
            raise failures.give_up(
                "invalid_query",
                f"the query cannot be used: {error.message}",
                hint="Try it with `temporal workflow list --query`, then start the roll anew.",
            ) from None
        raise _unreachable(error) from None


def _settled_already(asking: Member, standing: Standing, image_id: str | None) -> Member | None:
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


async def _asked(
    client: Client, request: TakeTurns, asking: Member, standing: Standing, request_id: str
) -> Member:
    payload = {
        "reason": request.reason,
        "requested_by": request.requested_by,
        "observed_generation": standing.generation,
        "request_id": request_id,
        "force": request.force,
    }
    try:
        async with asyncio.timeout(ANSWER_WITHIN.total_seconds()):
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
    return _answered(asking, outcome)


def _answered(asking: Member, outcome: RequestOutcome) -> Member:
    match outcome.outcome:
        case OutcomeKind.ACCEPTED | OutcomeKind.JOINED | OutcomeKind.STALE:
            # Joined or stale: somebody else's recreate came first, and the member counts by its result.
            return replace(
                asking, outcome=Outcome.IN_FLIGHT, generation=outcome.generation, detail=outcome.detail
            )
        case OutcomeKind.DEFERRED | OutcomeKind.REJECTED:
            return replace(asking, outcome=Outcome.FAILED, detail=f"{outcome.outcome}: {outcome.detail}")


def _unreachable(error: RPCError) -> Exception:
    return failures.try_again(
        "temporal_unavailable",
        f"Temporal does not answer ({error.status.name.lower()})",
        hint="See whether the Temporal server runs; it is tried again by itself.",
    )
