"""Advancing a delegation: delivering it, queueing it again, ending it, as far as it goes now.

What is due is `workflows.delegations`'; the ledger refuses what comes too late. The work itself and the
target's words stay in the ledger: neither enters a workflow's history.
"""

import asyncio
from dataclasses import dataclass, field
from datetime import timedelta
from typing import assert_never

import structlog
from temporalio import activity

from activities import failures
from activities.a2a import Answer, Bounds, Garbled, NoAnswer, Sender, Unreachable, message_send
from activities.answers import Heard, Judgement, hear
from activities.delegation_ports import Advance, Advanced, Order
from activities.execution import execution
from activities.turns import Crowded, Turns, again_after
from store import delegations, processing
from store.delegations import Row
from store.pool import Pool, connection
from workflows.delegations import (
    Deadlines,
    DelegationState,
    Deliver,
    End,
    Hold,
    Over,
    Requeue,
    Stall,
    Wait,
    due,
    pause,
)
from workflows.targets import Untargetable, target_url

LONGEST_ANSWER = 12 * 1024 * 1024
"""Results of ten megabytes were seen; what is longer counts as delivered, no more."""

SHORTEST_WAIT = timedelta(milliseconds=100)

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryConfig:
    """How delegations are delivered."""

    deadlines: Deadlines = field(default_factory=Deadlines)
    allow_loopback: bool = False
    """For boxes that are processes on this machine; anywhere else it would let a box aim at the worker."""
    answer_within: timedelta = timedelta(seconds=60)
    """An agent that answers with its result may think for a minute."""


class Delivery:
    """Needs PostgreSQL, and the way to the boxes."""

    def __init__(self, *, pool: Pool, sender: Sender, config: DeliveryConfig) -> None:
        self._pool = pool
        self._sender = sender
        self._config = config
        self._turns = Turns()

    @activity.defn(name="advance_delegation")
    async def advance_delegation(self, request: Advance) -> Advanced:
        """Do what is due until there is something to wait for; every change is conditional."""
        async with execution(request.delegation_id):
            await self._obey(request)
            while True:
                async with connection(self._pool) as conn:
                    row = await delegations.read(conn, request.delegation_id)
                if row is None:
                    raise failures.give_up(
                        "delegation_unknown",
                        f"there is no delegation {request.delegation_id}",
                        hint="Delegations are made through the register API, which writes their row first.",
                    )
                waited_for = await self._advance(request.delegation_id, row)
                if waited_for is not None:
                    return waited_for

    async def _obey(self, request: Advance) -> None:
        """A human's word about a dead letter."""
        async with connection(self._pool) as conn:
            match request.order:
                case Order.RESEND:
                    await delegations.resend(conn, request.delegation_id)
                case Order.GIVE_UP:
                    await delegations.end(
                        conn,
                        request.delegation_id,
                        DelegationState.CANCELED,
                        code="given_up",
                        error=f"given up by {request.ordered_by or 'an operator'}",
                        attempt=None,
                    )
                case None:
                    return
                case _ as never:
                    assert_never(never)
        await log.ainfo("delegation.ordered", order=request.order, by=request.ordered_by)

    async def _advance(self, delegation_id: str, row: Row) -> Advanced | None:
        it = row.delegation
        match due(it, row.now, self._config.deadlines):
            case Over():
                return Advanced(over=True, state=it.state, attempt=it.attempt)
            case Wait(until=until):
                wait = max(until - row.now, SHORTEST_WAIT).total_seconds()
                return Advanced(
                    over=False, state=it.state, attempt=it.attempt, wait_seconds=wait, held=it.held
                )
            case Deliver(generation=generation):
                try:
                    async with self._turns.turn(row.target_id):
                        await self._deliver(delegation_id, row, generation)
                except Crowded:
                    wait = again_after(row.now - it.created_at).total_seconds()
                    return Advanced(over=False, state=it.state, attempt=it.attempt, wait_seconds=wait)
            case End(state=state, code=code, error=error):
                async with connection(self._pool) as conn:
                    await delegations.end(
                        conn, delegation_id, state, code=code, error=error, attempt=it.attempt
                    )
                await log.awarning("delegation.ended", state=state, code=code)
            case Requeue():
                async with connection(self._pool) as conn:
                    await delegations.requeue(
                        conn, delegation_id, generation=it.target_generation, attempt=it.attempt
                    )
                await log.ainfo("delegation.requeued", attempt=it.attempt)
            case Hold():
                async with connection(self._pool) as conn:
                    await delegations.hold(conn, delegation_id, attempt=it.attempt)
                await log.awarning("delegation.held", attempt=it.attempt)
            case Stall():
                async with connection(self._pool) as conn:
                    await delegations.stall(conn, delegation_id, progressed_at=it.progressed_at)
                await log.awarning("delegation.stalled", attempt=it.attempt)
            case _ as never:
                assert_never(never)
        return None

    async def _deliver(self, delegation_id: str, row: Row, generation: int) -> None:
        judgement = await self._send(delegation_id, row, generation)
        it = row.delegation
        async with connection(self._pool) as conn, conn.transaction():
            match judgement.heard:
                case Heard.BUSY:
                    await delegations.unreached(
                        conn, delegation_id, attempt=it.attempt, again_after=pause(it.tries + 1)
                    )
                case Heard.REFUSED:
                    await delegations.refused(
                        conn,
                        delegation_id,
                        attempt=it.attempt,
                        code="refused",
                        error=judgement.error,
                        again_after=pause(it.attempt + 3),
                    )
                case heard:
                    then = _STATES[heard]
                    moved = await delegations.heard(
                        conn,
                        delegation_id,
                        then,
                        generation=generation,
                        attempt=it.attempt,
                        error_code="target_failed" if heard is Heard.FAILED else None,
                        error=judgement.error or None,
                        preview=judgement.preview or None,
                    )
                    if moved and then is DelegationState.PROCESSED:
                        await processing.processed(conn, row.target_id, generation=generation)
        await log.ainfo(
            "delegation.sent", heard=judgement.heard, generation=generation, attempt=it.attempt + 1
        )

    async def _send(self, delegation_id: str, row: Row, generation: int) -> Judgement:
        try:
            target = target_url(row.address, row.url, allow_loopback=self._config.allow_loopback)
        except Untargetable as why:
            return Judgement(heard=Heard.BUSY, error=str(why))
        async with connection(self._pool) as conn:
            task = await delegations.task(conn, delegation_id)
        message = message_send(
            delegation_id,
            task,
            blocking=False,
            metadata={
                "delegation_id": delegation_id,
                "attempt": row.delegation.attempt + 1,
                "generation": generation,
            },
        )
        bounds = Bounds(within=self._config.answer_within, bytes=LONGEST_ANSWER)
        try:
            async with self._sender.answer(target, message, bounds) as answer:
                return await _judged(answer)
        except Unreachable as why:
            return Judgement(heard=Heard.BUSY, error=str(why))
        except (NoAnswer, Garbled) as why:
            return Judgement(heard=Heard.REFUSED, error=str(why))


_STATES = {
    Heard.TAKEN: DelegationState.DELIVERED,
    Heard.IN_PROGRESS: DelegationState.IN_PROGRESS,
    Heard.PROCESSED: DelegationState.PROCESSED,
    Heard.FAILED: DelegationState.FAILED,
}


async def _judged(answer: Answer) -> Judgement:
    if not answer.whole:
        # Its status came, and no more that could be read: a 2xx is a delivery.
        return hear(answer.status, b"")
    if len(answer.body) < 65_536:
        return hear(answer.status, answer.body)
    return await asyncio.to_thread(hear, answer.status, answer.body)  # parsing it takes a while
