"""The canary: one question to the agent of the current box, to see that somebody is at home.

It asks at the recorded address; of what the box said of itself, it takes no more than port and path.
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
"""The answer to a one-word question; a box that sends more than a mebibyte is not answering it."""

QUESTION = "This is a routine check by the control plane. Please reply with the single word: ready"

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class CanaryConfig:
    """How the question is asked."""

    allow_loopback: bool = False
    """For boxes that are processes on this machine; anywhere else it would let a box aim at the worker."""
    response_timeout: timedelta = timedelta(seconds=60)
    """A model may think for a minute."""
    idle_after: timedelta = timedelta(minutes=10)
    """Whoever has processed something within it is not idle, and is not asked."""


class Canary:
    """Needs PostgreSQL, and the way to the boxes."""

    def __init__(self, *, pool: Pool, sender: A2aClient, config: CanaryConfig) -> None:
        self._pool = pool
        self._sender = sender
        self._config = config

    @activity.defn(name="ask_canary")
    async def ask_canary(self, request: AskCanary) -> CanaryResult:
        """One A2A `message/send` to the recorded address; whatever comes of it is a result."""
        async with activity_context(request.workspace_id, request.generation):
            async with connection(self._pool) as conn:
                box = await generations.current(conn, request.workspace_id, request.generation)
                busy = request.round > 0 and await agent_liveness.has_processed(
                    conn, request.workspace_id, generation=request.generation, within=self._config.idle_after
                )
            if box is None:
                raise application_errors.superseded(request.generation)
            if busy:
                return CanaryResult(answered=True)  # its work has answered for it: no model call
            result = await self._resolve_and_ask(box, request)
            await self._record(request, result)
            await log.ainfo(
                "canary.asked", answered=result.answered, code=result.code, attempt=request.attempt
            )
            return result

    async def _record(self, request: AskCanary, result: CanaryResult) -> None:
        """The canary is a delegation of the control plane's own: its end shows that the agent processes."""
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
        except InvalidTarget as why:
            return _failed(f"canary_{why.code}", str(why))
        return await self._ask(target, request)

    async def _ask(self, target: Target, request: AskCanary) -> CanaryResult:
        bounds = ResponseLimits(timeout=self._config.response_timeout, max_bytes=MAX_RESPONSE_BYTES)
        try:
            async with self._sender.send(target, question(request), bounds) as answer:
                if not answer.complete:
                    return _failed(
                        "canary_error",
                        f"the answer did not end in time, or is longer than {MAX_RESPONSE_BYTES} bytes",
                    )
                return parse_canary_response(answer.status, answer.body)
        except Unreachable as why:
            return _failed("canary_unreachable", str(why))
        except NoResponse as why:
            return _failed("canary_not_finished", str(why))
        except InvalidResponse as why:
            return _failed("canary_error", str(why))


def canary_id(request: AskCanary) -> str:
    """The same for every try of a question, so that an agent can tell."""
    asked = f"canary-{request.workspace_id}-{request.generation}"
    return f"{asked}-{request.round}" if request.round else asked


def question(request: AskCanary) -> dict[str, object]:
    """The JSON-RPC request."""
    return message_send(canary_id(request), QUESTION, blocking=True)


def _failed(code: str, detail: str) -> CanaryResult:
    return CanaryResult(answered=False, code=code, detail=detail)
