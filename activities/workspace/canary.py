"""The canary: a question to the agent of the current box, which proves that the agent processes work.

The target is the recorded address. Of the URL that the box reported, only port and path are used.
"""

from dataclasses import dataclass
from datetime import timedelta

import structlog
from temporalio import activity

from activities.delegation.a2a import (
    A2aClient,
    InvalidResponse,
    NoResponse,
    ResponseLimits,
    Unreachable,
    message_send,
)
from activities.delegation.a2a_responses import parse_canary_response
from activities.shared import application_errors
from activities.shared.activity_context import activity_context
from store.db.pool import Pool, connection
from store.delegation import agent_liveness, delegations
from store.delegation.delegations import NewDelegation
from store.workspace import generations
from store.workspace.generations import CurrentGeneration
from workflows.delegation.rules import DelegationState, DelegationType
from workflows.shared.target_url import InvalidTarget, Target, target_url
from workflows.workspace.contract import AskCanary, CanaryResult

MAX_RESPONSE_BYTES = 1024 * 1024
"""Longer responses count as an error: the question asks for one word."""

QUESTION = "This is a routine check by the control plane. Please reply with the single word: ready"

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class CanaryConfig:
    """How canaries are sent."""

    allow_loopback: bool = False
    """Only for boxes that are local processes. Otherwise a box could make the worker call itself."""
    response_timeout: timedelta = timedelta(seconds=60)
    """A model may need a minute for its answer."""
    idle_after: timedelta = timedelta(minutes=10)
    """An agent that has processed work within this time gets no periodic canary."""


class Canary:
    """Needs PostgreSQL, and network access to boxes."""

    def __init__(self, *, pool: Pool, sender: A2aClient, config: CanaryConfig) -> None:
        self._pool = pool
        self._sender = sender
        self._config = config

    @activity.defn(name="ask_canary")
    async def ask_canary(self, request: AskCanary) -> CanaryResult:
        """Send one A2A `message/send` to the recorded address. Failures are results, not errors."""
        async with activity_context(request.workspace_id, request.generation):
            async with connection(self._pool) as conn:
                box = await generations.current(conn, request.workspace_id, request.generation)
                busy = request.round > 0 and await agent_liveness.has_processed(
                    conn, request.workspace_id, generation=request.generation, within=self._config.idle_after
                )
            if box is None:
                raise application_errors.superseded(request.generation)
            if busy:
                return CanaryResult(answered=True)  # recent work is proof enough, without a model call
            result = await self._resolve_and_ask(box, request)
            await self._record(request, result)
            await log.ainfo(
                "canary.sent", answered=result.answered, code=result.code, attempt=request.attempt
            )
            return result

    async def _record(self, request: AskCanary, result: CanaryResult) -> None:
        """Record the canary as a delegation from the control plane. Its answer is evidence of processing."""
        new = NewDelegation(
            delegation_id=canary_id(request),
            type=DelegationType.CANARY,
            source_id=None,
            target_id=request.workspace_id,
            task=QUESTION,
        )
        async with connection(self._pool) as conn, conn.transaction():
            await delegations.create(conn, new)
            if result.answered and await delegations.record_progress(
                conn,
                new.delegation_id,
                DelegationState.PROCESSED,
                generation=request.generation,
                attempt=None,
            ):
                await agent_liveness.record_canary_answer(
                    conn, request.workspace_id, generation=request.generation
                )

    async def _resolve_and_ask(self, box: CurrentGeneration, request: AskCanary) -> CanaryResult:
        try:
            target = target_url(box.private_ip, box.url, allow_loopback=self._config.allow_loopback)
        except InvalidTarget as error:
            return _failed(f"canary_{error.code}", str(error))
        return await self._ask(target, request)

    async def _ask(self, target: Target, request: AskCanary) -> CanaryResult:
        limits = ResponseLimits(timeout=self._config.response_timeout, max_bytes=MAX_RESPONSE_BYTES)
        try:
            async with self._sender.send(target, question(request), limits) as response:
                if not response.complete:
                    return _failed(
                        "canary_error",
                        f"the response timed out or is longer than {MAX_RESPONSE_BYTES} bytes",
                    )
                return parse_canary_response(response.status, response.body)
        except Unreachable as error:
            return _failed("canary_unreachable", str(error))
        except NoResponse as error:
            return _failed("canary_not_finished", str(error))
        except InvalidResponse as error:
            return _failed("canary_error", str(error))


def canary_id(request: AskCanary) -> str:
    """The message ID, equal for all retries of a canary, so that an agent can drop duplicates."""
    base = f"canary-{request.workspace_id}-{request.generation}"
    return f"{base}-{request.round}" if request.round else base


def question(request: AskCanary) -> dict[str, object]:
    """The JSON-RPC request."""
    return message_send(canary_id(request), QUESTION, blocking=True)


def _failed(code: str, detail: str) -> CanaryResult:
    return CanaryResult(answered=False, code=code, detail=detail)
