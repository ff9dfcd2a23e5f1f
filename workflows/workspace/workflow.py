"""WorkspaceWorkflow: the durable owner of one workspace.

It applies events to the state machine of `lifecycle`, and runs the step that is due. The state machine makes
every decision, activities have every side effect.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import TypeVar

from temporalio import workflow
from temporalio.common import RawValue
from temporalio.exceptions import ApplicationError

with workflow.unsafe.imports_passed_through():
    from pydantic import BaseModel, TypeAdapter

    from workflows.shared import names
    from workflows.shared.payloads import InvalidPayload, read
    from workflows.shared.tasks import cancel_once, is_done, surface_errors
    from workflows.shared.wake_timer import WakeTimer
    from workflows.shared.workspace_ids import InvalidWorkspaceId, check_workspace_id
    from workflows.workspace import admission, conditions, lifecycle, messages
    from workflows.workspace import status as workspace_status
    from workflows.workspace.contract import Enrolled
    from workflows.workspace.enums import Phase
    from workflows.workspace.events import BoxChanged, Event, StateBehindRecord, Tick
    from workflows.workspace.messages import RequestOutcome, WorkspaceSpec, WorkspaceStatus
    from workflows.workspace.phases import runner
    from workflows.workspace.phases.definition import StepDefinition
    from workflows.workspace.requests import Request, RequestInput, RequestKind
    from workflows.workspace.state import FleetFreeze, State
    from workflows.workspace.status_writer import StatusWriter

MESSAGES_PER_RUN = 1_000
"""Then the run continues as new: the server refuses the 10,001st signal and the 2,001st update of a run."""

SHOWN_REQUESTS = 50

_STATE = TypeAdapter(State)
_Message = TypeVar("_Message", bound=BaseModel)


@workflow.defn(name=names.WORKFLOW_TYPE)
class WorkspaceWorkflow:
    """The owner of a workspace. Its workflow ID is the workspace ID."""

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
        self._running: StepDefinition | None = None
        self._step_task: asyncio.Task[None] | None = None
        self._record_task: asyncio.Task[None] | None = None
        self._status_writer = StatusWriter()
        self._timer = WakeTimer(self._wake)
        self._restore(payload)

    @workflow.run
    async def run(self, *payload: object) -> WorkspaceStatus:  # noqa: ARG002 - __init__ reads it
        """Serve the workspace until it is deleted."""
        if self._unusable is not None:
            raise self._unusable
        while True:
            surface_errors(self._step_task, self._record_task)
            self._reload_after_reset()
            self._apply(Tick())
            if self._is_run_full() and not self._state.pending:
                self._continue_as_new_if_idle()
            else:
                self._start_due_step()
                self._set_timer()
            self._start_recording()
            # Once per workflow task: once per signal of a storm took longer than a task may.
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

    # Signals record and return. They validate payloads, so that none fails the workflow task again and again.

    @workflow.signal(description="Replace the box; every member of the payload is optional")
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

    @workflow.signal(description="Defer automatic recreates for some seconds; 0 ends the freeze")
    def freeze(self, *payload: object) -> None:
        """See `Freeze`."""
        self._messages += 1
        message = self._read(messages.Freeze, payload)
        if message is not None:
            until = workflow.now() + timedelta(seconds=message.seconds)
            self._apply(
                FleetFreeze(until=until, reason=message.reason or f"by {message.requested_by or 'unnamed'}")
            )

    @workflow.signal(description="Internal: an event of the box")
    def box_changed(self, *payload: object) -> None:
        """See `BoxEvent`."""
        self._messages += 1
        self._reload_after_reset()
        event = self._read(messages.BoxEvent, payload)
        if event is None:
            return
        changed = BoxChanged(kind=event.kind, generation=event.generation, at=event.at, detail=event.detail)
        if self._state.enrolled:
            self._apply(changed)
        else:
            self._early_events.append(changed)  # PostgreSQL may be read without it

    @workflow.signal(dynamic=True)
    def unknown(self, name: str, payload: Sequence[RawValue]) -> None:  # noqa: ARG002 - the SDK's signature
        """Record a signal with an unknown name as rejected."""
        self._messages += 1
        self._reject(RequestKind.UNKNOWN, f"there is no signal {name[:80]!r}")

    # Updates make the same decisions and return the outcome. They never wait for a recreate.

    @workflow.update(description="Replace the box; returns the outcome of the request at once")
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

    @workflow.update(description="Confirm that a box is gone whose termination Onebox cannot confirm")
    async def declare_dead(self, *payload: object) -> RequestOutcome:
        """See `DeclareDead`."""
        return await self._handle_update(RequestKind.DECLARE_DEAD, payload)

    @workflow.query(description="Phase, conditions, last error, and what the workflow waits for")
    def status(self) -> WorkspaceStatus:
        """See `WorkspaceStatus`."""
        return workspace_status.status(self._state, self._running, workflow.now())

    @workflow.query(description="The last 50 requests with their outcomes, oldest first")
    def requests(self) -> list[RequestOutcome]:
        """See `RequestOutcome`."""
        return [RequestOutcome.of(request) for request in self._state.requests[-SHOWN_REQUESTS:]]

    def current_request(self) -> str:
        """The ID of the request that opened the current generation; empty if there was none."""
        return self._state.opening_request_id

    def _restore(self, payload: tuple[object, ...]) -> None:
        """Start from a spec, or from the state that the previous run carried over."""
        match payload:
            case ({"carried": carried, "spec": spec},) if workflow.info().continued_run_id:
                self._state = _STATE.validate_python(carried)
                self._spec = WorkspaceSpec.model_validate(spec)
                return
        try:
            check_workspace_id(self._state.workspace_id)
            self._spec = read(WorkspaceSpec, payload)
        except (InvalidWorkspaceId, InvalidPayload) as error:
            self._unusable = ApplicationError(str(error), type="InvalidWorkspace", non_retryable=True)

    def _reload_after_reset(self) -> None:
        """After a reset PostgreSQL is ahead of this state: read it before anything is decided.

        Only a reset changes a run's random seed, with the first task after it. Handlers call this, so it must
        issue no command: the order of updates and signals after a reset differs in a replay.
        """
        seed, self._seed = self._seed, workflow.random_seed()
        if seed != self._seed and self._state.enrolled:
            self._set_state(replace(self._state, enrolled=False))

    def _apply(self, event: Event) -> None:
        state = lifecycle.apply(self._state, event, workflow.now())
        if state != self._state:
            self._set_state(state)

    def _set_state(self, state: State) -> None:
        self._state = state
        self._wake()

    def _wake(self) -> None:
        self._awake = True

    def _handle_signal(self, kind: RequestKind, payload: tuple[object, ...]) -> None:
        self._messages += 1
        self._reload_after_reset()
        if self._state.enrolled:
            self._decide(kind, payload, request_id=str(workflow.uuid4()))
        else:
            self._early.append((kind, payload))  # decided once PostgreSQL has been read

    async def _handle_update(self, kind: RequestKind, payload: tuple[object, ...]) -> RequestOutcome:
        self._messages += 1
        self._reload_after_reset()
        update = workflow.current_update_info()
        # The update's ID makes a client's retry the same request, also in a later run of the chain.
        request_id = update.id if update else str(workflow.uuid4())
        if not self._state.enrolled:
            await workflow.wait_condition(lambda: self._state.enrolled or self._unusable is not None)
        request_id = self._decide(kind, payload, request_id=request_id)
        while (decided := self._outcome(request_id)) is None:
            # An automatic request waits for the fleet permit.
            await workflow.wait_condition(lambda: self._outcome(request_id) is not None)
        return RequestOutcome.of(decided)

    def _decide(self, kind: RequestKind, payload: tuple[object, ...], *, request_id: str) -> str:
        """Decide now, or once the fleet permit is there; returns the request ID."""
        try:
            request_input = messages.parse_request(kind, payload, request_id=request_id)
        except InvalidPayload as error:
            self._reject(kind, f"malformed payload: {error}", request_id=request_id)
            return request_id
        state, decided = lifecycle.request(self._state, request_input, workflow.now())
        self._set_state(state)
        return decided.request_id if decided is not None else request_input.request_id

    def _outcome(self, request_id: str) -> Request | None:
        return next((it for it in reversed(self._state.requests) if it.request_id == request_id), None)

    def _reject(self, kind: RequestKind, detail: str, *, request_id: str | None = None) -> None:
        request_input = RequestInput(kind=kind, request_id=request_id or str(workflow.uuid4()))
        state, _ = admission.reject(self._state, request_input, detail, at=workflow.now())
        self._set_state(state)

    def _read(self, model: type[_Message], payload: tuple[object, ...]) -> _Message | None:
        try:
            return read(model, payload)
        except InvalidPayload as error:
            self._reject(RequestKind.UNKNOWN, f"malformed payload: {error}")
            return None

    def _start_due_step(self) -> None:
        due = lifecycle.due(self._state, workflow.now())
        if not is_done(self._step_task):
            if self._running is not None and self._running.interruptible and due is not self._running:
                cancel_once(self._step_task)
            return
        if due is None:
            return
        self._running = due
        self._step_task = asyncio.create_task(self._run_step(due, self._state))

    async def _run_step(self, step: StepDefinition, begun: State) -> None:
        try:
            event = await runner.run_step(step, begun, self._spec)
        finally:
            self._running = None
            self._wake()
        if not lifecycle.result_still_applies(step, begun, self._state):
            return
        self._apply(event)
        if isinstance(event, Enrolled):
            self._found_deleted = event.deleted
            self._decide_early()

    def _decide_early(self) -> None:
        early_events, self._early_events = self._early_events, []
        for event in early_events:
            self._apply(event)
        early, self._early = self._early, []
        for kind, payload in early:
            self._decide(kind, payload, request_id=str(workflow.uuid4()))

    def _start_recording(self) -> None:
        if not self._state.enrolled or not is_done(self._record_task):
            return
        if self._status_writer.is_due(self._state, resting=self._running is None):
            state = replace(self._state, revision=self._state.revision + 1)
            self._state = state
            self._record_task = asyncio.create_task(self._record(state))

    async def _record(self, state: State) -> None:
        try:
            written = await self._status_writer.write(state, resting=self._running is None)
        finally:
            self._wake()
        self._state = replace(
            self._state,
            unrecorded=self._state.unrecorded - written.requests,
            revision=max(self._state.revision, written.revision),
        )
        if written.behind and state.generation == self._state.generation:
            self._apply(StateBehindRecord())

    def _set_timer(self) -> None:
        at, summary = lifecycle.wake_at(self._state), workspace_status.waiting_for(self._state, None)
        self._timer.set(at, start=self._running is None, summary=summary)

    def _is_run_full(self) -> bool:
        full = self._messages >= MESSAGES_PER_RUN or workflow.info().is_continue_as_new_suggested()
        return full and self._state.enrolled

    def _is_idle(self) -> bool:
        return self._state.enrolled and is_done(self._step_task) and is_done(self._record_task)

    def _continue_as_new_if_idle(self) -> None:
        carries_little = self._state.unrecorded <= admission.KEPT_OUTCOMES
        if self._is_idle() and carries_little and workflow.all_handlers_finished():
            carried = _STATE.dump_python(self._state, mode="json")
            workflow.continue_as_new({"carried": carried, "spec": self._spec.model_dump(mode="json")})

    def _is_over(self) -> bool:
        is_deleted = conditions.phase(self._state) is Phase.DELETED
        return is_deleted and self._is_idle() and not self._state.unrecorded
