"""Advances a delegation: delivers it, queues it again, or ends it, until it has to wait.

`workflows.delegation.rules` decides the next action. Every write is conditional, so late ones have no effect.
Tasks and results stay in PostgreSQL: they never enter a workflow's history.
"""

import asyncio
from dataclasses import dataclass, field
from datetime import timedelta
from typing import assert_never

import structlog
from temporalio import activity

from activities.delegation.a2a import (
    A2aClient,
    InvalidResponse,
    NoResponse,
    Response,
    ResponseLimits,
    Unreachable,
    message_send,
)
from activities.delegation.a2a_responses import ParsedReply, Reply, parse_reply
from activities.delegation.per_target_limiter import PerTargetLimiter, TooManyInFlight, retry_after
from activities.shared import application_errors
from activities.shared.activity_context import activity_context
from store.db.pool import Pool, connection
from store.delegation import agent_liveness, delegation_state, delegations
from store.delegation.delegation_state import DelegationRow
from workflows.delegation.contract import Advance, Advanced, Command
from workflows.delegation.rules import (
    DeadLetter,
    Deadlines,
    DelegationState,
    Deliver,
    End,
    Over,
    Requeue,
    Stall,
    Wait,
    backoff,
    due,
)
from workflows.shared.target_url import InvalidTarget, target_url

MAX_RESPONSE_BYTES = 12 * 1024 * 1024
"""Results of 10 MB occur. A longer response counts as delivered, without a result."""

MIN_WAIT = timedelta(milliseconds=100)

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryConfig:
    """How delegations are delivered."""

    deadlines: Deadlines = field(default_factory=Deadlines)
    allow_loopback: bool = False
    """Only for boxes that are local processes. Otherwise a box could make the worker call itself."""
    response_timeout: timedelta = timedelta(seconds=60)
    """An agent that responds with its result may need a minute."""


class Delivery:
    """Needs PostgreSQL, and network access to boxes."""

    def __init__(self, *, pool: Pool, sender: A2aClient, config: DeliveryConfig) -> None:
        self._pool = pool
        self._sender = sender
        self._config = config
        self._limiter = PerTargetLimiter()

    @activity.defn(name="advance_delegation")
    async def advance_delegation(self, request: Advance) -> Advanced:
        """Run due actions until there is something to wait for."""
        async with activity_context(request.delegation_id):
            await self._apply_command(request)
            while True:
                async with connection(self._pool) as conn:
                    row = await delegation_state.read(conn, request.delegation_id)
                if row is None:
                    raise application_errors.non_retryable(
                        "delegation_unknown",
                        f"delegation {request.delegation_id} does not exist",
                        hint="Create delegations through the register API, which inserts their row first.",
                    )
                result = await self._advance(request.delegation_id, row)
                if result is not None:
                    return result

    async def _apply_command(self, request: Advance) -> None:
        """Apply an operator's command to a dead-lettered delegation."""
        async with connection(self._pool) as conn:
            match request.command:
                case Command.RESEND:
                    await delegations.resend(conn, request.delegation_id)
                case Command.GIVE_UP:
                    await delegations.end(
                        conn,
                        request.delegation_id,
                        DelegationState.CANCELED,
                        code="given_up",
                        error=f"given up by {request.requested_by or 'an operator'}",
                        attempt=None,
                    )
                case None:
                    return
                case _ as never:
                    assert_never(never)
        await log.ainfo(
            "delegation.command_applied", command=request.command, requested_by=request.requested_by
        )

    async def _advance(self, delegation_id: str, row: DelegationRow) -> Advanced | None:
        it = row.delegation
        match due(it, row.now, self._config.deadlines):
            case Over():
                return Advanced(over=True, state=it.state, attempt=it.attempt)
            case Wait(until=until):
                wait = max(until - row.now, MIN_WAIT).total_seconds()
                return Advanced(
                    over=False,
                    state=it.state,
                    attempt=it.attempt,
                    wait_seconds=wait,
                    dead_lettered=it.dead_lettered,
                )
            case Deliver(generation=generation):
                try:
                    async with self._limiter.slot(row.target_id):
                        await self._deliver(delegation_id, row, generation)
                except TooManyInFlight:
                    wait = retry_after(row.now - it.created_at).total_seconds()
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
            case DeadLetter():
                async with connection(self._pool) as conn:
                    await delegations.dead_letter(conn, delegation_id, attempt=it.attempt)
                await log.awarning("delegation.dead_lettered", attempt=it.attempt)
            case Stall():
                async with connection(self._pool) as conn:
                    await delegations.mark_stalled(conn, delegation_id, progressed_at=it.progressed_at)
                await log.awarning("delegation.stalled", attempt=it.attempt)
            case _ as never:
                assert_never(never)
        return None

    async def _deliver(self, delegation_id: str, row: DelegationRow, generation: int) -> None:
        parsed = await self._send(delegation_id, row, generation)
        it = row.delegation
        async with connection(self._pool) as conn, conn.transaction():
            match parsed.reply:
                case Reply.UNAVAILABLE:
                    await delegations.record_unreachable(
                        conn, delegation_id, attempt=it.attempt, retry_after=backoff(it.connect_failures + 1)
                    )
                case Reply.REFUSED:
                    await delegations.record_refusal(
                        conn,
                        delegation_id,
                        attempt=it.attempt,
                        code="refused",
                        error=parsed.error,
                        retry_after=backoff(it.attempt + 3),
                    )
                case reply:
                    new_state = _STATES[reply]
                    moved = await delegations.record_progress(
                        conn,
                        delegation_id,
                        new_state,
                        generation=generation,
                        attempt=it.attempt,
                        error_code="target_failed" if reply is Reply.FAILED else None,
                        error=parsed.error or None,
                        preview=parsed.preview or None,
                    )
                    if moved and new_state is DelegationState.PROCESSED:
                        await agent_liveness.record_processed(conn, row.target_id, generation=generation)
        await log.ainfo("delegation.sent", reply=parsed.reply, generation=generation, attempt=it.attempt + 1)

    async def _send(self, delegation_id: str, row: DelegationRow, generation: int) -> ParsedReply:
        try:
            target = target_url(row.address, row.url, allow_loopback=self._config.allow_loopback)
        except InvalidTarget as error:
            return ParsedReply(reply=Reply.UNAVAILABLE, error=str(error))
        async with connection(self._pool) as conn:
            task = await delegation_state.read_task(conn, delegation_id)
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
        limits = ResponseLimits(timeout=self._config.response_timeout, max_bytes=MAX_RESPONSE_BYTES)
        try:
            async with self._sender.send(target, message, limits) as answer:
                return await _parse_response(answer)
        except Unreachable as error:
            return ParsedReply(reply=Reply.UNAVAILABLE, error=str(error))
        except (NoResponse, InvalidResponse) as error:
            return ParsedReply(reply=Reply.REFUSED, error=str(error))


_STATES = {
    Reply.ACCEPTED: DelegationState.DELIVERED,
    Reply.IN_PROGRESS: DelegationState.IN_PROGRESS,
    Reply.PROCESSED: DelegationState.PROCESSED,
    Reply.FAILED: DelegationState.FAILED,
}


async def _parse_response(answer: Response) -> ParsedReply:
    if not answer.complete:
        # The status is known, the body is not: a 2xx counts as a delivery.
        return parse_reply(answer.status, b"")
    if len(answer.body) < 65_536:
        return parse_reply(answer.status, answer.body)
    return await asyncio.to_thread(parse_reply, answer.status, answer.body)  # parsing a large body blocks
