"""WorkspaceWorkflow: the life of one workspace. Takes events in and carries steps out.

It decides nothing itself: every decision is the lifecycle's, every effect an activity's.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import TypeVar

from temporalio import workflow
from temporalio.common import RawValue
from temporalio.exceptions import ApplicationError

with workflow.unsafe.imports_passed_through():
    from pydantic import BaseModel, TypeAdapter

    from workflows.shared.workspace_ids import InvalidWorkspaceId, check_workspace_id
    from workflows.workspace import admission, conditions, deadlines, lifecycle, messages
    from workflows.workspace import status as workspace_status
    from workflows.workspace.events import ORPHAN_EVENTS, BoxChanged, Enrolled
    from workflows.workspace.messages import RequestOutcome, WorkspaceSpec, WorkspaceStatus
    from workflows.workspace.phases import fleet_permit, runner
    from workflows.workspace.requests import OutcomeKind, Request, RequestInput, RequestKind
    from workflows.workspace.state import FleetFreeze, Phase, State, Step
    from workflows.workspace.status_writer import StatusWriter

MESSAGES_PER_RUN = 1_000
"""Then the run continues as new. The server refuses the 10,001st signal and the 2,001st update of a run,
and its own suggestion to continue looks at events and size only."""

SHOWN_REQUESTS = 50

CONSULTS = "consult-the-fleet"
"""The patch since which automatic recreates need the fleet's leave, and end where they don't help."""

INQUIRES = "inquire-before-a-missed-registration"
"""The patch since which a deadline is missed only after a look at the record."""

STRAYS = "take-orphan_instances"
"""The patch since which the workflow takes the sweep's facts; older code rejected their kinds."""

_STATE = TypeAdapter(State)
_Message = TypeVar("_Message", bound=BaseModel)


@workflow.defn(name=messages.WORKFLOW_TYPE)
class WorkspaceWorkflow:
    """The one durable owner of a workspace: its workflow ID is the workspace ID."""

    @workflow.init
    def __init__(self, *payload: object) -> None:
        self._state = State(workspace_id=workflow.info().workflow_id)
        self._spec = WorkspaceSpec()
        self._unusable: ApplicationError | None = None
        self._found_deleted = False
        self._early: list[tuple[RequestKind, tuple[object, ...]]] = []
        self._early_events: list[BoxChanged] = []
        self._messages = 0
        self._seed = workflow.random_seed()
        self._awake = True
        self._running: Step | None = None
        self._step_task: asyncio.Task[None] | None = None
        self._record_task: asyncio.Task[None] | None = None
        self._status_writer = StatusWriter()
        self._timer: tuple[datetime, asyncio.Task[None]] | None = None
        self._restore(payload)

    @workflow.run
    async def run(self, *payload: object) -> WorkspaceStatus:  # noqa: ARG002 - taken in by __init__
        """Serve the workspace until it is deleted."""
        if self._unusable is not None:
            raise self._unusable
        while True:
            self._surface_task_errors()
            self._reload_after_reset()
            self._apply(lifecycle.Tick())
            if self._is_run_full() and not self._state.pending:
                self._continue_as_new_if_idle()
            else:
                self._start_due_step()
                self._set_timer()
            self._start_recording()
            # Once for all that came together: for each of a thousand signals it took longer than a task may.
            workflow.set_current_details(workspace_status.details(self._state, self._running, workflow.now()))
            if self._is_over():
                break
            self._awake = False
            try:
                await workflow.wait_condition(lambda: self._awake)
            except asyncio.CancelledError:
                self._reject(RequestKind.UNKNOWN, "a cancellation does nothing; send stop or delete")
        await workflow.wait_condition(workflow.all_handlers_finished)
        if self._found_deleted:
            raise ApplicationError(
                f"workspace {self._state.workspace_id} was deleted; its ID is not used again",
                type="WorkspaceDeleted",
                non_retryable=True,
            )
        return self.status()

    # Signals: they record and return. What they carry is checked here, so that nothing can wedge the run.

    @workflow.signal(description="Ask for a new box; every member of the payload is optional")
    def recreate(self, *payload: object) -> None:
        """See `RecreateRequest`."""
        self._handle_signal(RequestKind.RECREATE, payload)

    @workflow.signal(description="Terminate the box, keep the workspace")
    def stop(self, *payload: object) -> None:
        """See `IntentRequest`."""
        self._handle_signal(RequestKind.STOP, payload)

    @workflow.signal(description="Give a stopped or failed workspace a box")
    def start(self, *payload: object) -> None:
        """See `IntentRequest`."""
        self._handle_signal(RequestKind.START, payload)

    @workflow.signal(description="Terminate the box, remove the DNS name, end the workspace for good")
    def delete(self, *payload: object) -> None:
        """See `IntentRequest`."""
        self._handle_signal(RequestKind.DELETE, payload)

    @workflow.signal(description="Defer automatic recreates for some seconds; 0 thaws")
    def freeze(self, *payload: object) -> None:
        """See `Freeze`."""
        self._messages += 1
        message = self._read(messages.Freeze, payload)
        if message is not None:
            until = workflow.now() + timedelta(seconds=message.seconds)
            self._apply(
                FleetFreeze(until=until, reason=message.reason or f"by {message.requested_by or 'unnamed'}")
            )

    @workflow.signal(description="A transition of the box; sent by the control plane itself")
    def box_changed(self, *payload: object) -> None:
        """See `BoxEvent`."""
        self._messages += 1
        self._reload_after_reset()
        fact = self._read(messages.BoxEvent, payload)
        if fact is not None and fact.kind in ORPHAN_EVENTS and not workflow.patched(STRAYS):
            self._reject(RequestKind.UNKNOWN, f"malformed payload: kind: {fact.kind} is not known yet")
        elif fact is not None:
            changed = BoxChanged(kind=fact.kind, generation=fact.generation, at=fact.at, detail=fact.detail)
            if self._state.enrolled:
                self._apply(changed)
            else:
                self._early_events.append(changed)  # the record that is being read may not have it yet

    @workflow.signal(dynamic=True)
    def unknown(self, name: str, payload: Sequence[RawValue]) -> None:  # noqa: ARG002 - the SDK's signature
        """Keep what was sent under a wrong name visible."""
        self._messages += 1
        self._reject(RequestKind.UNKNOWN, f"there is no signal {name[:80]!r}")

    # Updates: the same decisions, with the outcome as the answer. They never wait for a recreate.

    @workflow.update(description="Ask for a new box, and learn at once what becomes of the request")
    async def request_recreate(self, *payload: object) -> RequestOutcome:
        """See `RecreateRequest`."""
        return await self._handle_update(RequestKind.RECREATE, payload)

    @workflow.update(description="Terminate the box, keep the workspace")
    async def request_stop(self, *payload: object) -> RequestOutcome:
        """See `IntentRequest`."""
        return await self._handle_update(RequestKind.STOP, payload)

    @workflow.update(description="Give a stopped or failed workspace a box")
    async def request_start(self, *payload: object) -> RequestOutcome:
        """See `IntentRequest`."""
        return await self._handle_update(RequestKind.START, payload)

    @workflow.update(description="Terminate the box, remove the DNS name, end the workspace for good")
    async def request_delete(self, *payload: object) -> RequestOutcome:
        """See `IntentRequest`."""
        return await self._handle_update(RequestKind.DELETE, payload)

    @workflow.update(description="A human's word that a box whose termination cannot be confirmed is gone")
    async def declare_dead(self, *payload: object) -> RequestOutcome:
        """See `DeclareDead`."""
        return await self._handle_update(RequestKind.DECLARE_DEAD, payload)

    @workflow.query(description="What the workspace is, and why")
    def status(self) -> WorkspaceStatus:
        """See `WorkspaceStatus`."""
        return workspace_status.status(self._state, self._running, workflow.now())

    @workflow.query(description="The last 50 requests with their outcomes, oldest first")
    def requests(self) -> list[RequestOutcome]:
        """See `RequestOutcome`."""
        return [RequestOutcome.of(request) for request in self._state.requests[-SHOWN_REQUESTS:]]

    def current_request(self) -> str:
        """The ID of the request that the present generation was opened for; empty if there was none."""
        opening = (RequestKind.RECREATE, RequestKind.START)
        for it in reversed(self._state.requests):
            is_it = it.kind in opening and it.outcome is OutcomeKind.ACCEPTED
            if is_it and it.generation == self._state.generation:
                return it.request_id
        return ""

    def _restore(self, payload: tuple[object, ...]) -> None:
        """Take up a spec, or the state that the run before carried over."""
        match payload:
            case ({"carried": carried, "spec": spec},) if workflow.info().continued_run_id:
                self._state = _STATE.validate_python(carried)
                self._spec = WorkspaceSpec.model_validate(spec)
                return
            case _:
                self._take_spec(payload)

    def _take_spec(self, payload: tuple[object, ...]) -> None:
        try:
            check_workspace_id(self._state.workspace_id)
            self._spec = messages.read(WorkspaceSpec, payload)
        except (InvalidWorkspaceId, messages.InvalidPayload) as error:
            self._unusable = ApplicationError(str(error), type="InvalidWorkspace", non_retryable=True)

    def _reload_after_reset(self) -> None:
        """After a reset the record is ahead of what is remembered here: read it before anything is decided.

        Only a reset gives a run another random seed, with the first task after it. Handlers call this, so it
        must issue no command: in which order updates and signals come after a reset differs in a replay.
        """
        seed, self._seed = self._seed, workflow.random_seed()
        if seed != self._seed and self._state.enrolled and self._state.heeds_resets:
            self._set_state(replace(self._state, enrolled=False))

    def _apply(self, event: lifecycle.Event) -> None:
        now, before = workflow.now(), self._state
        # Runs that began before this step existed judged the deadline at once, and replay so.
        overdue = deadlines.is_registration_overdue(before, now)
        if overdue and not before.inquires and workflow.patched(INQUIRES):
            before = replace(before, inquires=True)
        state = self._minding_the_fleet(before, lambda state: lifecycle.apply(state, event, now))
        if state != self._state:
            self._set_state(state)

    def _minding_the_fleet(self, before: State, advance: Callable[[State], State]) -> State:
        """Advance; runs that began before the fleet was minded do so from their next automatic recreate."""
        state = advance(before)
        recreates = fleet_permit.accepted_automatically(before, state)
        if recreates and not before.consults and workflow.patched(CONSULTS):
            return advance(replace(before, consults=True))
        return state

    def _set_state(self, state: State) -> None:
        self._state = state
        self._awake = True

    def _handle_signal(self, kind: RequestKind, payload: tuple[object, ...]) -> None:
        self._messages += 1
        self._reload_after_reset()
        if self._state.enrolled:
            self._decide(kind, payload, request_id=str(workflow.uuid4()))
        else:
            self._early.append((kind, payload))  # nothing is known yet that could decide it

    async def _handle_update(self, kind: RequestKind, payload: tuple[object, ...]) -> RequestOutcome:
        self._messages += 1
        self._reload_after_reset()
        update = workflow.current_update_info()
        # The update's own ID makes a client's retry the same request, also in a later run of the chain.
        request_id = update.id if update else str(workflow.uuid4())
        if not self._state.enrolled:
            await workflow.wait_condition(lambda: self._state.enrolled or self._unusable is not None)
        request_id = self._decide(kind, payload, request_id=request_id)
        while (decided := self._outcome(request_id)) is None:
            # An automatic one waits for a query of the fleet's state, and for nothing else.
            await workflow.wait_condition(lambda: self._outcome(request_id) is not None)
        return RequestOutcome.of(decided)

    def _decide(self, kind: RequestKind, payload: tuple[object, ...], *, request_id: str) -> str:
        """Decide now, or once the fleet has had its word; returns the ID that the request goes by."""
        try:
            request_input = messages.parse_request(kind, payload, request_id=request_id)
        except messages.InvalidPayload as error:
            self._reject(kind, f"malformed payload: {error}", request_id=request_id)
            return request_id
        now = workflow.now()
        self._set_state(
            self._minding_the_fleet(
                self._state, lambda state: lifecycle.request(state, request_input, now)[0]
            )
        )
        return request_input.request_id

    def _outcome(self, request_id: str) -> Request | None:
        return next((it for it in reversed(self._state.requests) if it.request_id == request_id), None)

    def _reject(self, kind: RequestKind, detail: str, *, request_id: str | None = None) -> None:
        request_input = RequestInput(kind=kind, request_id=request_id or str(workflow.uuid4()))
        state, _ = admission.reject(self._state, request_input, detail, at=workflow.now())
        self._set_state(state)

    def _read(self, model: type[_Message], payload: tuple[object, ...]) -> _Message | None:
        try:
            return messages.read(model, payload)
        except messages.InvalidPayload as error:
            self._reject(RequestKind.UNKNOWN, f"malformed payload: {error}")
            return None

    def _start_due_step(self) -> None:
        step = lifecycle.due(self._state, workflow.now())
        if not _is_done(self._step_task):
            if self._step_task and self._running is Step.CANARY and step is not Step.CANARY:
                self._step_task.cancel()  # its box is on the way out: nobody waits for the answer
            return
        if step is None:
            return
        self._running = step
        self._step_task = asyncio.create_task(self._run_step(step, self._state))

    async def _run_step(self, step: Step, begun: State) -> None:
        try:
            event = await runner.run_step(step, begun, self._spec)
        finally:
            self._running = None
            self._awake = True
        if not lifecycle.result_still_applies(step, begun, self._state):
            return
        self._apply(event)
        if isinstance(event, Enrolled):
            self._found_deleted = event.deleted
            self._decide_early()

    def _decide_early(self) -> None:
        facts, self._early_events = self._early_events, []
        for fact in facts:
            self._apply(fact)
        early, self._early = self._early, []
        for kind, payload in early:
            self._decide(kind, payload, request_id=str(workflow.uuid4()))

    def _start_recording(self) -> None:
        if not self._state.enrolled or not _is_done(self._record_task):
            return
        if self._status_writer.is_due(self._state, resting=self._running is None):
            state = replace(self._state, revision=self._state.revision + 1)
            self._state = state
            self._record_task = asyncio.create_task(self._record(state))

    async def _record(self, state: State) -> None:
        try:
            written = await self._status_writer.write(state, resting=self._running is None)
        finally:
            self._awake = True
        self._state = replace(
            self._state,
            unrecorded=self._state.unrecorded - written.requests,
            revision=max(self._state.revision, written.revision),
        )
        if written.ahead and state.generation == self._state.generation:
            self._apply(lifecycle.StateBehindRecord())

    def _set_timer(self) -> None:
        due_at = lifecycle.wake_at(self._state)
        if self._timer is not None:
            if self._timer[0] == due_at and not self._timer[1].done():
                return
            self._timer[1].cancel()
            self._timer = None
        if due_at is not None and self._running is None:
            self._timer = (due_at, asyncio.create_task(self._sleep_until(due_at)))

    async def _sleep_until(self, due_at: datetime) -> None:
        summary = workspace_status.waiting_for(self._state, None)
        await workflow.sleep(max(due_at - workflow.now(), timedelta()), summary=summary)
        self._awake = True

    def _surface_task_errors(self) -> None:
        """An error in the program fails the workflow task, where it is seen, instead of spinning."""
        for task in (self._step_task, self._record_task):
            if task is not None and task.done() and not task.cancelled() and (error := task.exception()):
                # Not as it is: an error of Temporal's own would fail the workflow, and not the task.
                raise RuntimeError(f"a step broke: {type(error).__name__}") from error

    def _is_run_full(self) -> bool:
        full = self._messages >= MESSAGES_PER_RUN or workflow.info().is_continue_as_new_suggested()
        return full and self._state.enrolled

    def _is_idle(self) -> bool:
        return self._state.enrolled and _is_done(self._step_task) and _is_done(self._record_task)

    def _continue_as_new_if_idle(self) -> None:
        carries_little = self._state.unrecorded <= admission.KEPT_OUTCOMES
        if self._is_idle() and carries_little and workflow.all_handlers_finished():
            carried = _STATE.dump_python(self._state, mode="json")
            workflow.continue_as_new({"carried": carried, "spec": self._spec.model_dump(mode="json")})

    def _is_over(self) -> bool:
        return (
            conditions.phase(self._state) is Phase.DELETED and self._is_idle() and not self._state.unrecorded
        )


def _is_done(task: asyncio.Task[None] | None) -> bool:
    return task is None or task.done()
