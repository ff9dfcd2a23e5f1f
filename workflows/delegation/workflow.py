"""DelegationWorkflow: the durable driver of one delegation; its workflow ID is the delegation's.

It decides nothing and knows no content: what is due is found in the ledger, by an activity. Here is the
patience: to look again when something stirs, when a deadline comes, when a human says so.
"""

import asyncio
from datetime import timedelta

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from workflows.delegation import contract
    from workflows.shared.activity_options import DELIVERY
    from workflows.workspace import messages
    from workflows.workspace.messages import DelegationCommand, DelegationStatus

ADVANCES_PER_RUN = 500
"""Each is six events; a run holds 51,200, and is slow long before."""


@workflow.defn(name=messages.DELEGATION_TYPE)
class DelegationWorkflow:
    """One delegation, until it has ended."""

    @workflow.init
    def __init__(self, *payload: object) -> None:  # noqa: ARG002 - whatever it was started with
        self._changed = False
        self._orders: list[tuple[contract.Command, str]] = []
        self._last: contract.Advanced | None = None
        self._advances = 0
        self._shown = ""

    @workflow.run
    async def run(self, *payload: object) -> DelegationStatus:  # noqa: ARG002 - the row has it all
        """Look, wait, look again."""
        while True:
            self._changed = False
            advanced = await self._advance()
            if advanced.over:
                return self.status()
            if self._orders:
                continue
            if self._advances >= ADVANCES_PER_RUN and workflow.all_handlers_finished():
                workflow.continue_as_new()
            wait = timedelta(seconds=advanced.wait_seconds)
            try:
                await workflow.wait_condition(
                    lambda: self._changed or bool(self._orders),
                    timeout=wait,
                    timeout_summary=f"{advanced.state}: look again",
                )
            except TimeoutError:
                continue
            except asyncio.CancelledError:
                self._canceled()

    @workflow.signal(description="Something changed in the ledger; sent by the control plane itself")
    def stirred(self, *payload: object) -> None:  # noqa: ARG002 - it carries nothing
        """Look again."""
        self._changed = True

    @workflow.signal(description="Send a dead letter again, with all its attempts")
    def resend(self, *payload: object) -> None:
        """See `DelegationCommand`."""
        self._ordered(contract.Command.RESEND, payload)

    @workflow.signal(description="End it without its being processed")
    def give_up(self, *payload: object) -> None:
        """See `DelegationCommand`."""
        self._ordered(contract.Command.GIVE_UP, payload)

    @workflow.query(description="How far it is")
    def status(self) -> DelegationStatus:
        """See `DelegationStatus`."""
        last = self._last
        return DelegationStatus(
            delegation_id=workflow.info().workflow_id,
            state=last.state if last is not None else None,
            attempt=last.attempt if last is not None else 0,
            held=last.dead_lettered if last is not None else False,
        )

    def _canceled(self) -> None:
        """A cancellation is a human's word, too: the row must not be left without an end."""
        self._orders.append((contract.Command.GIVE_UP, "a cancellation of its workflow"))

    def _ordered(self, order: contract.Command, payload: tuple[object, ...]) -> None:
        try:
            by = messages.read(DelegationCommand, payload).requested_by
        except messages.InvalidPayload as error:
            workflow.logger.warning("delegation.order_unread", extra={"error": str(error)})
            return
        self._orders.append((order, by))

    async def _advance(self) -> contract.Advanced:
        order, by = self._orders.pop(0) if self._orders else (None, "")
        self._advances += 1
        delegation_id = workflow.info().workflow_id
        look = workflow.start_activity(
            contract.advance_delegation,
            contract.Advance(delegation_id=delegation_id, order=order, ordered_by=by),
            activity_id=f"look-{self._advances}",
            task_queue=DELIVERY.task_queue,
            start_to_close_timeout=DELIVERY.start_to_close,
            heartbeat_timeout=DELIVERY.heartbeat,
            retry_policy=DELIVERY.retry,
            summary=f"{order}" if order is not None else "do what is due",
        )
        while not look.done():
            try:
                await asyncio.shield(look)
            except asyncio.CancelledError:
                self._canceled()
        self._last = look.result()
        shown = "held" if self._last.dead_lettered else str(self._last.state)
        if shown != self._shown:
            workflow.upsert_search_attributes([messages.DELEGATION_STATE.value_set(shown)])
            self._shown = shown
        return self._last
