"""DelegationWorkflow: timers and retries of one delegation, whose ID is part of the workflow ID.

It holds no task content. An activity reads the next action from the delegations table; the workflow waits for
the next event, deadline or operator command.
"""

import asyncio
from datetime import timedelta

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from workflows.delegation import contract
    from workflows.delegation.messages import DelegationCommand, DelegationStatus, delegation_id_of
    from workflows.shared import names, payloads
    from workflows.shared.activity_options import DELIVERY

ADVANCES_PER_RUN = 500
"""Six events each. A run holds 51,200, and gets slow long before."""


@workflow.defn(name=names.DELEGATION_TYPE)
class DelegationWorkflow:
    """One delegation, until it has ended."""

    @workflow.init
    def __init__(self, *payload: object) -> None:  # noqa: ARG002 - ignores its input
        self._changed = False
        self._commands: list[tuple[contract.Command, str]] = []
        self._last: contract.Advanced | None = None
        self._advances = 0
        self._shown = ""

    @workflow.run
    async def run(self, *payload: object) -> DelegationStatus:  # noqa: ARG002 - ignores its input
        """Do what is due, and wait for what is next."""
        while True:
            self._changed = False
            advanced = await self._advance()
            if advanced.over:
                return self.status()
            if self._commands:
                continue
            if self._advances >= ADVANCES_PER_RUN and workflow.all_handlers_finished():
                workflow.continue_as_new()
            wait = timedelta(seconds=advanced.wait_seconds)
            try:
                await workflow.wait_condition(
                    lambda: self._changed or bool(self._commands),
                    timeout=wait,
                    timeout_summary=f"{advanced.state}: check again",
                )
            except TimeoutError:
                continue
            except asyncio.CancelledError:
                self._canceled()

    @workflow.signal(description="Internal: the delegation's row has changed")
    def stirred(self, *payload: object) -> None:  # noqa: ARG002 - it carries nothing
        """Check what is due."""
        self._changed = True

    @workflow.signal(description="Send a dead letter again, with all its attempts")
    def resend(self, *payload: object) -> None:
        """See `DelegationCommand`."""
        self._add_command(contract.Command.RESEND, payload)

    @workflow.signal(description="End it unprocessed")
    def give_up(self, *payload: object) -> None:
        """See `DelegationCommand`."""
        self._add_command(contract.Command.GIVE_UP, payload)

    @workflow.query(description="State and attempts")
    def status(self) -> DelegationStatus:
        """See `DelegationStatus`."""
        last = self._last
        return DelegationStatus(
            delegation_id=delegation_id_of(workflow.info().workflow_id),
            state=last.state if last is not None else None,
            attempt=last.attempt if last is not None else 0,
            held=last.dead_lettered if last is not None else False,
        )

    def _canceled(self) -> None:
        """A cancellation is an operator's command: the row must reach an end."""
        self._commands.append((contract.Command.GIVE_UP, "cancellation of its workflow"))

    def _add_command(self, command: contract.Command, payload: tuple[object, ...]) -> None:
        try:
            by = payloads.read(DelegationCommand, payload).requested_by
        except payloads.InvalidPayload as error:
            workflow.logger.warning("delegation.command_rejected", extra={"error": str(error)})
            return
        self._commands.append((command, by))

    async def _advance(self) -> contract.Advanced:
        command, by = self._commands.pop(0) if self._commands else (None, "")
        self._advances += 1
        delegation_id = delegation_id_of(workflow.info().workflow_id)
        activity = workflow.start_activity(
            contract.advance_delegation,
            contract.Advance(delegation_id=delegation_id, command=command, requested_by=by),
            activity_id=f"advance-{self._advances}",
            task_queue=DELIVERY.task_queue,
            start_to_close_timeout=DELIVERY.start_to_close,
            heartbeat_timeout=DELIVERY.heartbeat,
            retry_policy=DELIVERY.retry,
            summary=f"{command}" if command is not None else "do what is due",
        )
        while not activity.done():
            try:
                await asyncio.shield(activity)
            except asyncio.CancelledError:
                self._canceled()
        self._last = activity.result()
        shown = "held" if self._last.dead_lettered else str(self._last.state)
        if shown != self._shown:
            workflow.upsert_search_attributes([names.DELEGATION_STATE.value_set(shown)])
            self._shown = shown
        return self._last
