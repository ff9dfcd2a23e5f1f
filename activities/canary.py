"""The canary: one question to the agent of the current box, to see that somebody is at home.

It asks at the recorded address; of what the box said of itself, it takes no more than port and path.
"""

import asyncio
from dataclasses import dataclass
from datetime import timedelta

import httpx
import structlog
from temporalio import activity

from activities import failures
from activities.answers import judge_answer
from activities.execution import execution
from activities.ports import AskCanary, CanaryResult
from store import generations
from store.generations import Current
from store.pool import Pool, connection
from workflows.targets import Target, Untargetable, target_url

CONNECT_WITHIN = timedelta(seconds=3)
"""The box is in the same network."""

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


class Canary:
    """Needs PostgreSQL, and the way to the boxes."""

    def __init__(self, *, pool: Pool, config: CanaryConfig) -> None:
        self._pool = pool
        self._config = config

    @activity.defn(name="ask_canary")
    async def ask_canary(self, request: AskCanary) -> CanaryResult:
        """One A2A `message/send` to the recorded address; whatever comes of it is a result."""
        async with execution(request.workspace_id, request.generation):
            async with connection(self._pool) as conn:
                box = await generations.current(conn, request.workspace_id, request.generation)
            if box is None:
                raise failures.superseded(request.generation)
            result = await self._ask_at(box, request)
            await log.ainfo(
                "canary.asked", answered=result.answered, code=result.code, attempt=request.attempt
            )
            return result

    async def _ask_at(self, box: Current, request: AskCanary) -> CanaryResult:
        try:
            target = target_url(box.private_ip, box.url, allow_loopback=self._config.allow_loopback)
        except Untargetable as why:
            return _unanswered(f"canary_{why.code}", str(why))
        return await self._ask(target, request)

    async def _ask(self, target: Target, request: AskCanary) -> CanaryResult:
        within = self._config.answer_within.total_seconds()
        try:
            async with (
                asyncio.timeout(within),
                httpx.AsyncClient(
                    trust_env=False,
                    follow_redirects=False,
                    # Reading the certificates takes as long as the whole question does without TLS.
                    verify=target.url.startswith("https:"),
                    timeout=httpx.Timeout(within, connect=CONNECT_WITHIN.total_seconds()),
                ) as client,
                client.stream(
                    "POST",
                    target.url,
                    json=question(request.workspace_id, request.generation),
                    # Unpacked bytes only: the bound on the answer counts what is held in memory.
                    headers={"accept": "application/json", "accept-encoding": "identity"},
                    extensions={"sni_hostname": target.host},
                ) as response,
            ):
                body = bytearray()
                async for chunk in response.aiter_raw():
                    body += chunk
                    if len(body) > LONGEST_ANSWER:
                        return _unanswered(
                            "canary_error", f"the answer is longer than {LONGEST_ANSWER} bytes"
                        )
                return judge_answer(response.status_code, bytes(body))
        except (TimeoutError, httpx.ReadTimeout):
            return _unanswered("canary_not_finished", f"no answer within {within:g} s")
        except httpx.TransportError as error:
            return _unanswered("canary_unreachable", f"{type(error).__name__} at {target.url}")


def question(workspace_id: str, generation: int) -> dict[str, object]:
    """The JSON-RPC request; its message ID is the same for every try, so that an agent can tell."""
    message_id = f"canary-{workspace_id}-{generation}"
    return {
        "jsonrpc": "2.0",
        "id": message_id,
        "method": "message/send",
        "params": {
            "message": {
                "kind": "message",
                "role": "user",
                "messageId": message_id,
                "parts": [{"kind": "text", "text": QUESTION}],
            },
            "configuration": {"blocking": True, "acceptedOutputModes": ["text/plain"]},
        },
    }


def _unanswered(code: str, detail: str) -> CanaryResult:
    return CanaryResult(answered=False, code=code, detail=detail)
