"""RolloutWorkflow: one fleet rollout, from plan to report. The caller chooses the workflow ID.

`rules` decides which members start and when to pause.
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

    # Imported here and first. Temporal's sandbox, in which tests replay, would otherwise import these modules
    # again, with enumerations that are not those of the activities.
    from workflows.rollout import contract, display, rules
    from workflows.rollout import messages as rollout_messages
    from workflows.rollout.messages import CommandResult, RolloutCommand, RolloutProgress, RolloutRequest
    from workflows.rollout.rules import Member, Rollout, RolloutState
    from workflows.shared import names, payloads
    from workflows.shared.activity_options import ROLLOUT
    from workflows.workspace.requests import rollout_requester

WATCH = timedelta(seconds=30)
"""How long one watch activity polls while members are in flight."""

WATCH_FOR_CAPACITY = timedelta(minutes=5)
"""How long one watch activity polls while the rollout only waits for capacity."""

ROUNDS_PER_RUN = 500
"""A round is six events, one of which may carry the IDs of all unavailable members."""

MAX_ID_CHARS = 100
"""The workflow ID is part of each request's ID and of its `requested_by`."""

KEPT_COMMANDS = 20

_ROLLOUT = TypeAdapter(Rollout)
_Request = TypeVar("_Request")
_Result = TypeVar("_Result")


@workflow.defn(name=names.ROLLOUT_TYPE)
class RolloutWorkflow:
    """Recreates many workspaces, a bounded share at a time; see `RolloutRequest`."""

    @workflow.init
    def __init__(self, *payload: object) -> None:
        self._request = RolloutRequest()
        self._unusable: ApplicationError | None = None
        self._rollout: Rollout | None = None
        self._commands: list[str] = []
        self._began_at: datetime | None = None
        self._ended_at: datetime | None = None
        self._rounds = 0
        self._fresh = False
        """Whether the last survey is newer than the last start or command: only then may members start."""
        self._changed = False
        self._shown = ""
        self._restore(payload)

    @workflow.run
    async def run(self, *payload: object) -> RolloutProgress:  # noqa: ARG002 - __init__ reads it
        """Plan, wait for `proceed`, recreate the members; the result is the report."""
        if self._unusable is not None:
            raise self._unusable
        if self._rollout is None:
            await self._plan()
        while not rules.is_over(self._planned):
            self._continue_as_new_if_full()
            await self._run_round()
            self._show()
        await workflow.wait_condition(workflow.all_handlers_finished)
        self._ended_at = workflow.now()
        self._show()
        return self.progress()

    # Updates return at once; one that arrives during planning waits for the plan.

    @workflow.update(description="Start the planned rollout")
    async def proceed(self, *payload: object) -> CommandResult:
        """See `RolloutCommand`."""
        return await self._run_command("proceed", payload, lambda rollout, _: rules.proceeded(rollout))

    @workflow.update(description="Start no more members; those in flight continue")
    async def pause(self, *payload: object) -> CommandResult:
        """See `RolloutCommand`."""
        return await self._run_command("pause", payload, rules.paused)

    @workflow.update(description="Continue after a pause; failures count from 0 again")
    async def resume(self, *payload: object) -> CommandResult:
        """See `RolloutCommand`."""
        return await self._run_command("resume", payload, lambda rollout, _: rules.resumed(rollout))

    @workflow.update(description="Start no further members and end once those in flight have completed")
    async def abort(self, *payload: object) -> CommandResult:
        """See `RolloutCommand`."""
        return await self._run_command("abort", payload, rules.aborted)

    @workflow.update(description="Start the failed members again, after all others")
    async def retry_failed(self, *payload: object) -> CommandResult:
        """See `RolloutCommand`."""
        return await self._run_command("retry_failed", payload, lambda rollout, _: rules.retried(rollout))

    @workflow.query(description="State of the rollout, and the outcome of each workspace")
    def progress(self) -> RolloutProgress:
        """See `RolloutProgress`."""
        return display.progress(
            self._rollout,
            rollout_id=workflow.info().workflow_id,
            began_at=self._began_at,
            ended_at=self._ended_at,
        )

    def _restore(self, payload: tuple[object, ...]) -> None:
        """Start from a request, or from the state that the previous run carried over."""
        match payload:
            case ({"carried": carried, "request": request, "orders": [*orders], "began_at": began_at},) if (
                workflow.info().continued_run_id
            ):
                self._rollout = _ROLLOUT.validate_python(carried)
                self._request = RolloutRequest.model_validate(request)
                self._commands = [str(order) for order in orders]
                self._began_at = datetime.fromisoformat(str(began_at)) if began_at else None
                return
            case _:
                self._take_request(payload)

    def _take_request(self, payload: tuple[object, ...]) -> None:
        try:
            self._request = payloads.read(RolloutRequest, payload)
        except payloads.InvalidPayload as error:
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
                summary="find the members of the rollout",
            )
        except ActivityError as error:
            cause = error.cause
            if isinstance(cause, ApplicationError):
                raise ApplicationError(cause.message, *cause.details, type=cause.type) from None
            raise
        if not planned.workspaces:
            raise _invalid("no workspace matches")
        self._rollout = Rollout(
            members=tuple(Member(workspace_id=each) for each in planned.workspaces),
            allowed=rules.allowed(len(planned.workspaces), request.max_unavailable),
            max_failures=request.max_failures,
            image_id=request.image_id,
            deadline=timedelta(seconds=request.member_deadline_seconds),
        )
        if request.start:
            self._rollout = replace(self._rollout, state=RolloutState.ROLLING)
            self._began_at = workflow.now()
        self._show()

    async def _run_round(self) -> None:
        """Start members, poll them, or wait for a command: one of the three."""
        rollout = self._planned
        due = rules.next_members(rollout)
        if due and self._fresh:
            await self._start_members(due)
        elif rules.in_flight(rollout) or rollout.state is RolloutState.ROLLING:
            await self._watch(once=bool(due))
        else:
            self._changed = False
            await self._until(lambda: self._changed)

    async def _start_members(self, members: tuple[Member, ...]) -> None:
        self._fresh = False
        request = self._request
        started = await self._run(
            contract.start_members,
            contract.StartMembers(
                rollout_id=self._key,
                members=members,
                image_id=request.image_id,
                requested_by=rollout_requester(request.requested_by, workflow.info().workflow_id),
                reason=request.reason or "a fleet rollout",
                force=request.force,
            ),
            activity_id=f"turns-{self._rounds}",
            summary=f"start {', '.join(member.workspace_id for member in members[:3])}"
            + (f" and {len(members) - 3} more" if len(members) > 3 else ""),
        )
        self._rollout = rules.members_started(self._planned, started.members, workflow.now())

    async def _watch(self, *, once: bool) -> None:
        rollout = self._planned
        in_flight = rules.in_flight(rollout)
        window = timedelta() if once else WATCH if in_flight else WATCH_FOR_CAPACITY
        self._changed = False
        watching = self._begin(
            contract.watch_rollout,
            contract.WatchRollout(
                rollout_id=self._key,
                # The activity compares no more than these. All members would make the history large.
                snapshot=replace(rollout, members=rules.tracked_members(rollout), down=frozenset()),
                wants_capacity=rules.wants_capacity(rollout),
                seconds=window.total_seconds(),
            ),
            activity_id=f"watch-{self._rounds}",
            summary=display.waiting_for(rollout)[:200],
        )
        await self._until(lambda: watching.done() or self._changed)
        if not watching.done():
            watching.cancel()  # after a command, members start only from a new survey
        try:
            survey = await watching
        except ActivityError as error:
            if is_cancelled_exception(error):
                return
            raise
        self._rollout = rules.apply_survey(self._planned, survey, workflow.now())
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

    async def _until(self, condition: Callable[[], bool]) -> None:
        """Wait for a condition. A cancellation aborts the rollout, which still ends with a report."""
        while True:
            try:
                await workflow.wait_condition(condition)
            except asyncio.CancelledError:
                if self._rollout is None:
                    raise
                await self._run_command("abort", ({"reason": "its workflow was canceled"},), rules.aborted)
            else:
                return

    async def _run_command(
        self,
        name: str,
        payload: tuple[object, ...],
        apply: Callable[[Rollout, str], tuple[Rollout, str | None]],
    ) -> CommandResult:
        try:
            command = payloads.read(RolloutCommand, payload)
        except payloads.InvalidPayload as error:
            state = self._rollout.state if self._rollout is not None else None
            return CommandResult(taken=False, detail=f"malformed payload: {error}", state=state)
        await workflow.wait_condition(lambda: self._rollout is not None)
        by = f"by {command.requested_by or 'unnamed'}" + (f": {command.reason}" if command.reason else "")
        self._rollout, refused = apply(self._planned, by)
        if refused is None:
            self._changed, self._fresh = True, False
            entry = f"{workflow.now():%Y-%m-%d %H:%M:%S} UTC: {name} {by}"
            self._commands = [*self._commands, entry][-KEPT_COMMANDS:]
            if self._began_at is None and self._rollout.state is RolloutState.ROLLING:
                self._began_at = workflow.now()
            self._show()
        return CommandResult(
            taken=refused is None,
            detail=refused or display.waiting_for(self._planned),
            state=self._planned.state,
        )

    @property
    def _planned(self) -> Rollout:
        if self._rollout is None:
            raise AssertionError("the rollout has no plan yet")
        return self._rollout

    @property
    def _key(self) -> str:
        """Unique, also among rollouts with the same workflow ID; continue-as-new keeps it."""
        info = workflow.info()
        return f"{info.workflow_id}/{info.first_execution_run_id[:8]}"

    def _show(self) -> None:
        rollout = self._planned
        workflow.set_current_details(display.details(rollout, self._commands))
        shown = rollout_messages.ENDED if self._ended_at is not None else str(rollout.state)
        if shown != self._shown:
            self._shown = shown
            workflow.upsert_search_attributes([names.ROLLOUT_STATE.value_set(shown)])

    def _continue_as_new_if_full(self) -> None:
        full = self._rounds >= ROUNDS_PER_RUN or workflow.info().is_continue_as_new_suggested()
        if full and workflow.all_handlers_finished():
            workflow.continue_as_new(
                {
                    "carried": _ROLLOUT.dump_python(self._planned, mode="json", exclude_defaults=True),
                    "request": self._request.model_dump(mode="json"),
                    "orders": self._commands,
                    "began_at": self._began_at.isoformat() if self._began_at else None,
                }
            )


def _invalid(message: str) -> ApplicationError:
    return ApplicationError(message, type="InvalidRollout", non_retryable=True)
