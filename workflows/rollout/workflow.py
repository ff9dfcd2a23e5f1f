"""RolloutWorkflow: one fleet rollout, from plan to report. Whoever starts it chooses the workflow ID.

It decides nothing itself: whose turn it is and when to pause is `rollout`'s, every effect an activity's.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import TypeVar

from temporalio import workflow
from temporalio.exceptions import ActivityError, ApplicationError, is_cancelled_exception

with workflow.unsafe.imports_passed_through():
    from pydantic import TypeAdapter

    # Whole, and before all else: Temporal's sandbox, in which a test replays, would make of `from workflows
    # import rollout` a module of its own, whose outcomes are not those of the activities.
    from workflows.rollout import contract, display, rules
    from workflows.rollout import messages as rollout_messages
    from workflows.rollout.messages import CommandResult, RolloutCommand, RolloutProgress, RolloutRequest
    from workflows.rollout.rules import Member, Rollout, RolloutState
    from workflows.shared.activity_options import ROLLOUT
    from workflows.workspace import messages as workspace_messages
    from workflows.workspace.requests import rollout_requester

WATCH = timedelta(seconds=30)
"""Without news of those on the way, so often something is seen of the rollout's being alive."""

WATCH_FOR_CAPACITY = timedelta(minutes=5)

ROUNDS_PER_RUN = 500
"""Each is six events, and one may carry the names of all that are down."""

MAX_ID_CHARS = 100
"""The rollout's name is part of each request's ID and of its requester's name."""

KEPT_COMMANDS = 20

_ROLL = TypeAdapter(Rollout)
_Request = TypeVar("_Request")
_Result = TypeVar("_Result")


@workflow.defn(name=rollout_messages.ROLLOUT_TYPE)
class RolloutWorkflow:
    """Recreates many workspaces, a bounded share at a time."""

    @workflow.init
    def __init__(self, *payload: object) -> None:
        self._request = RolloutRequest()
        self._unusable: ApplicationError | None = None
        self._roll: Rollout | None = None
        self._orders: list[str] = []
        self._began_at: datetime | None = None
        self._ended_at: datetime | None = None
        self._rounds = 0
        self._fresh = False
        """The last look is newer than all that was begun or ordered: turns may follow from it."""
        self._changed = False
        self._shown = ""
        self._restore(payload)

    @workflow.run
    async def run(self, *payload: object) -> RolloutProgress:  # noqa: ARG002 - taken in by __init__
        """Plan, wait for the word, rollout; the report is the result."""
        if self._unusable is not None:
            raise self._unusable
        if self._roll is None:
            await self._plan()
        while not rules.is_over(self._planned):
            self._continue_as_new_if_full()
            await self._go_on()
            self._show()
        await workflow.wait_condition(workflow.all_handlers_finished)
        self._ended_at = workflow.now()
        self._show()
        return self.progress()

    # Updates answer at once; those that come before the plan is made wait for it.

    @workflow.update(description="Begin what was planned")
    async def proceed(self, *payload: object) -> CommandResult:
        """See `RolloutCommand`."""
        return await self._ordered("proceed", payload, lambda rollout, _: rules.proceeded(rollout))

    @workflow.update(description="Begin nothing new; who is on the way is waited for")
    async def pause(self, *payload: object) -> CommandResult:
        """See `RolloutCommand`."""
        return await self._ordered("pause", payload, rules.paused)

    @workflow.update(description="Go on after a pause; failures are counted anew")
    async def resume(self, *payload: object) -> CommandResult:
        """See `RolloutCommand`."""
        return await self._ordered("resume", payload, lambda rollout, _: rules.resumed(rollout))

    @workflow.update(description="Begin nothing more, and end when those on the way have arrived")
    async def abort(self, *payload: object) -> CommandResult:
        """See `RolloutCommand`."""
        return await self._ordered("abort", payload, rules.aborted)

    @workflow.update(description="Give those that failed another turn, after all others")
    async def retry_failed(self, *payload: object) -> CommandResult:
        """See `RolloutCommand`."""
        return await self._ordered("retry_failed", payload, lambda rollout, _: rules.retried(rollout))

    @workflow.query(description="How far it is, and what became of each workspace")
    def progress(self) -> RolloutProgress:
        """See `RolloutProgress`."""
        return display.progress(
            self._roll,
            rollout_id=workflow.info().workflow_id,
            began_at=self._began_at,
            ended_at=self._ended_at,
        )

    def _restore(self, payload: tuple[object, ...]) -> None:
        """Take up a request, or what the run before carried over."""
        match payload:
            case ({"carried": carried, "request": request, "orders": [*orders], "began_at": began_at},) if (
                workflow.info().continued_run_id
            ):
                self._roll = _ROLL.validate_python(carried)
                self._request = RolloutRequest.model_validate(request)
                self._orders = [str(order) for order in orders]
                self._began_at = datetime.fromisoformat(str(began_at)) if began_at else None
                return
            case _:
                self._take_request(payload)

    def _take_request(self, payload: tuple[object, ...]) -> None:
        try:
            self._request = workspace_messages.read(RolloutRequest, payload)
        except workspace_messages.InvalidPayload as error:
            self._unusable = _invalid(str(error))
        if len(workflow.info().workflow_id) > MAX_ID_CHARS:
            self._unusable = _invalid(f"the ID of a rollout has at most {MAX_ID_CHARS} characters")

    async def _plan(self) -> None:
        request = self._request
        try:
            planned = await self._run(
                contract.plan_rollout,
                contract.PlanRollout(
                    rollout_id=self._key,
                    requested_by=request.requested_by,
                    reason=request.reason,
                    image_id=request.image_id,
                    query=request.query,
                    workspaces=request.workspaces,
                ),
                activity_id="plan",
                summary="find the members",
            )
        except ActivityError as error:
            cause = error.cause
            if isinstance(cause, ApplicationError):
                raise ApplicationError(cause.message, *cause.details, type=cause.type) from None
            raise
        if not planned.workspaces:
            raise _invalid("no workspace matches: there is nothing to rollout")
        self._roll = Rollout(
            members=tuple(Member(workspace_id=each) for each in planned.workspaces),
            allowed=rules.allowed(len(planned.workspaces), request.max_unavailable),
            max_failures=request.max_failures,
            image_id=request.image_id,
            deadline=timedelta(seconds=request.member_deadline_seconds),
        )
        if request.start:
            self._roll = replace(self._roll, state=RolloutState.ROLLING)
            self._began_at = workflow.now()
        self._show()

    async def _go_on(self) -> None:
        """Give turns, or look, or wait for a word: one of them."""
        rollout = self._planned
        turns = rules.next_members(rollout)
        if turns and self._fresh:
            await self._take_turns(turns)
        elif rules.in_flight(rollout) or rollout.state is RolloutState.ROLLING:
            await self._watch(once=bool(turns))
        else:
            self._changed = False
            await self._until(lambda: self._changed)

    async def _take_turns(self, turns: tuple[Member, ...]) -> None:
        self._fresh = False
        request = self._request
        taken = await self._run(
            contract.start_members,
            contract.StartMembers(
                rollout_id=self._key,
                members=turns,
                image_id=request.image_id,
                requested_by=rollout_requester(request.requested_by, workflow.info().workflow_id),
                reason=request.reason or "a fleet rollout",
                force=request.force,
            ),
            activity_id=f"turns-{self._rounds}",
            summary=f"turns of {', '.join(turn.workspace_id for turn in turns[:3])}"
            + (f" and {len(turns) - 3} more" if len(turns) > 3 else ""),
        )
        self._roll = rules.members_started(self._planned, taken.members, workflow.now())

    async def _watch(self, *, once: bool) -> None:
        rollout = self._planned
        in_flight = rules.in_flight(rollout)
        window = timedelta() if once else WATCH if in_flight else WATCH_FOR_CAPACITY
        self._changed = False
        watching = self._begin(
            contract.watch_rollout,
            contract.WatchRollout(
                rollout_id=self._key,
                # These are all that news is judged by; the rest would swell the history.
                snapshot=replace(rollout, members=rules.tracked_members(rollout), down=frozenset()),
                wants_capacity=rules.wants_capacity(rollout),
                seconds=window.total_seconds(),
            ),
            activity_id=f"watch-{self._rounds}",
            summary=display.waiting_for(rollout)[:200],
        )
        await self._until(lambda: watching.done() or self._changed)
        if not watching.done():
            watching.cancel()  # an order came: what follows from it is judged by a look of its own
        try:
            survey = await watching
        except ActivityError as error:
            if is_cancelled_exception(error):
                return
            raise
        self._roll = rules.apply_survey(self._planned, survey, workflow.now())
        self._fresh = True

    def _begin(
        self,
        activity: Callable[[_Request], Awaitable[_Result]],
        request: _Request,
        *,
        activity_id: str,
        summary: str,
    ) -> "workflow.ActivityHandle[_Result]":
        self._rounds += 1
        return workflow.start_activity(
            activity,
            request,
            activity_id=activity_id,
            task_queue=ROLLOUT.task_queue,
            start_to_close_timeout=ROLLOUT.start_to_close,
            heartbeat_timeout=ROLLOUT.heartbeat,
            retry_policy=ROLLOUT.retry,
            summary=summary,
        )

    async def _run(
        self,
        activity: Callable[[_Request], Awaitable[_Result]],
        request: _Request,
        *,
        activity_id: str,
        summary: str,
    ) -> _Result:
        running = self._begin(activity, request, activity_id=activity_id, summary=summary)
        await self._until(running.done)
        return await running

    async def _until(self, is_so: Callable[[], bool]) -> None:
        """Wait; a cancellation is a human's word, too, and leaves a report where there is a plan."""
        while True:
            try:
                await workflow.wait_condition(is_so)
            except asyncio.CancelledError:
                if self._roll is None:
                    raise
                await self._ordered("abort", ({"reason": "its workflow was canceled"},), rules.aborted)
            else:
                return

    async def _ordered(
        self,
        name: str,
        payload: tuple[object, ...],
        order: Callable[[Rollout, str], tuple[Rollout, str | None]],
    ) -> CommandResult:
        try:
            said = workspace_messages.read(RolloutCommand, payload)
        except workspace_messages.InvalidPayload as error:
            state = self._roll.state if self._roll is not None else None
            return CommandResult(taken=False, detail=f"malformed payload: {error}", state=state)
        await workflow.wait_condition(lambda: self._roll is not None)
        by = f"by {said.requested_by or 'unnamed'}" + (f": {said.reason}" if said.reason else "")
        self._roll, refused = order(self._planned, by)
        if refused is None:
            self._changed, self._fresh = True, False
            self._orders = [*self._orders, f"{workflow.now():%Y-%m-%d %H:%M:%S} UTC: {name} {by}"]
            self._orders = self._orders[-KEPT_COMMANDS:]
            if self._began_at is None and self._roll.state is RolloutState.ROLLING:
                self._began_at = workflow.now()
            self._show()
        return CommandResult(
            taken=refused is None,
            detail=refused or display.waiting_for(self._planned),
            state=self._planned.state,
        )

    @property
    def _planned(self) -> Rollout:
        if self._roll is None:
            raise AssertionError("the plan is made first")
        return self._roll

    @property
    def _key(self) -> str:
        """Names this rollout, also after continue-as-new; a later one under the same ID has another."""
        info = workflow.info()
        return f"{info.workflow_id}/{info.first_execution_run_id[:8]}"

    def _show(self) -> None:
        rollout = self._planned
        workflow.set_current_details(display.details(rollout, self._orders))
        shown = rollout_messages.ENDED if self._ended_at is not None else str(rollout.state)
        if shown != self._shown:
            self._shown = shown
            workflow.upsert_search_attributes([workspace_messages.ROLLOUT_STATE.value_set(shown)])

    def _continue_as_new_if_full(self) -> None:
        full = self._rounds >= ROUNDS_PER_RUN or workflow.info().is_continue_as_new_suggested()
        if full and workflow.all_handlers_finished():
            workflow.continue_as_new(
                {
                    "carried": _ROLL.dump_python(self._planned, mode="json", exclude_defaults=True),
                    "request": self._request.model_dump(mode="json"),
                    "orders": self._orders,
                    "began_at": self._began_at.isoformat() if self._began_at else None,
                }
            )


def _invalid(why: str) -> ApplicationError:
    return ApplicationError(why, type="InvalidRollout", non_retryable=True)
