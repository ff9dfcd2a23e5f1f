"""The canary: one question to the agent of the current box, to see that somebody is at home.

It asks at the recorded address; of what the box said of itself, it takes no more than port and path.
"""

from dataclasses import dataclass
from datetime import timedelta

import structlog
from temporalio import activity

from activities import failures
from activities.a2a import Bounds, Garbled, NoAnswer, Sender, Unreachable, message_send
from activities.answers import judge_answer
from activities.execution import execution
from activities.ports import AskCanary, CanaryResult
from store import delegations, generations, processing
from store.delegations import New
from store.generations import Current
from store.pool import Pool, connection
from workflows.delegations import DelegationState, DelegationType
from workflows.targets import Target, Untargetable, target_url

LONGEST_ANSWER = 1024 * 1024
"""The answer to a one-word question; a box that sends more than a mebibyte is not answering it."""

QUESTION = "This is a routine check by the control plane. Please reply with the single word: ready"

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class CanaryConfig:
    """How the question is asked."""

    allow_loopback: bool = False
    """For boxes that are processes on this machine; anywhere else it would let a box aim at the worker."""
    answer_within: timedelta = timedelta(seconds=60)
    """A model may think for a minute."""
    idle: timedelta = timedelta(minutes=10)
    """Whoever has processed something within it is not idle, and is not asked."""


class Canary:
    """Needs PostgreSQL, and the way to the boxes."""

    def __init__(self, *, pool: Pool, sender: Sender, config: CanaryConfig) -> None:
        self._pool = pool
        self._sender = sender
        self._config = config

    @activity.defn(name="ask_canary")
    async def ask_canary(self, request: AskCanary) -> CanaryResult:
        """One A2A `message/send` to the recorded address; whatever comes of it is a result."""
        async with execution(request.workspace_id, request.generation):
            async with connection(self._pool) as conn:
                box = await generations.current(conn, request.workspace_id, request.generation)
                busy = request.round > 0 and await processing.has_processed(
                    conn, request.workspace_id, generation=request.generation, within=self._config.idle
                )
            if box is None:
                raise failures.superseded(request.generation)
            if busy:
                return CanaryResult(answered=True)  # its work has answered for it: no model call
            result = await self._ask_at(box, request)
            await self._write_down(request, result)
            await log.ainfo(
                "canary.asked", answered=result.answered, code=result.code, attempt=request.attempt
            )
            return result

    async def _write_down(self, request: AskCanary, result: CanaryResult) -> None:
        """The canary is a delegation of the control plane's own: its end shows that the agent processes."""
        new = New(
            delegation_id=canary_id(request),
            type=DelegationType.CANARY,
            source_id=None,
            target_id=request.workspace_id,
            task=QUESTION,
        )
        async with connection(self._pool) as conn, conn.transaction():
            await delegations.create(conn, new)
            if result.answered and await delegations.heard(
                conn,
                new.delegation_id,
                DelegationState.PROCESSED,
                generation=request.generation,
                attempt=None,
            ):
                await processing.answered(conn, request.workspace_id, generation=request.generation)

    async def _ask_at(self, box: Current, request: AskCanary) -> CanaryResult:
        try:
            target = target_url(box.private_ip, box.url, allow_loopback=self._config.allow_loopback)
        except Untargetable as why:
            return _unanswered(f"canary_{why.code}", str(why))
        return await self._ask(target, request)

    async def _ask(self, target: Target, request: AskCanary) -> CanaryResult:
        bounds = Bounds(within=self._config.answer_within, bytes=LONGEST_ANSWER)
        try:
            async with self._sender.answer(target, question(request), bounds) as answer:
                if not answer.whole:
                    return _unanswered(
                        "canary_error",
                        f"the answer did not end in time, or is longer than {LONGEST_ANSWER} bytes",
                    )
                return judge_answer(answer.status, answer.body)
        except Unreachable as why:
            return _unanswered("canary_unreachable", str(why))
        except NoAnswer as why:
            return _unanswered("canary_not_finished", str(why))
        except Garbled as why:
            return _unanswered("canary_error", str(why))


def canary_id(request: AskCanary) -> str:
    """The same for every try of a question, so that an agent can tell."""
    asked = f"canary-{request.workspace_id}-{request.generation}"
    return f"{asked}-{request.round}" if request.round else asked


def question(request: AskCanary) -> dict[str, object]:
    """The JSON-RPC request."""
    return message_send(canary_id(request), QUESTION, blocking=True)


def _unanswered(code: str, detail: str) -> CanaryResult:
    return CanaryResult(answered=False, code=code, detail=detail)
