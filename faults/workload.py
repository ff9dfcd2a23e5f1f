"""Seeded random requests: recreates, intents, delegations, tokens, malformed and unauthorized calls.

Records the responses that callers got; `invariants` compares them with the results.
"""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import httpx2
import psycopg
from temporalio.client import RPCError, WorkflowUpdateFailedError, WorkflowUpdateRPCTimeoutOrCancelledError

from devstack.console import Console
from faults.invariants.evidence import PromisedDelegation, SentRequest, UnauthorizedAttempt

CALLERS = 8
"""Concurrent callers. A caller that waits for a part that is down does not delay the others."""

ANSWER_SECONDS = 15.0
PAUSE_SECONDS = (0.05, 0.8)
SOURCES = ("watchdog-2", "auto-recovery", "admin:alice", "admin:bob")
REASON_WORDS = ("größer als 1 €", "a line\nand another", "x" * 2000, "{}")

UNAVAILABLE = (
    RPCError,
    WorkflowUpdateRPCTimeoutOrCancelledError,
    WorkflowUpdateFailedError,
    httpx2.HTTPError,
    psycopg.Error,
    TimeoutError,
)
"""Errors that a caller sees while a part is down; the request may or may not have been accepted."""


@dataclass(slots=True)
class CallLog:
    """Requests and responses as the callers know them."""

    sent: list[SentRequest] = field(default_factory=list)
    delegated: list[PromisedDelegation] = field(default_factory=list)
    unauthorized_attempts: list[UnauthorizedAttempt] = field(default_factory=list)
    secrets: dict[str, str] = field(default_factory=dict, repr=False)
    """API tokens that were issued."""
    counts: Counter[str] = field(default_factory=Counter)
    """Requests by kind, with or without a response."""


class Callers:
    """All callers."""

    def __init__(self, console: Console, *, seed: int, workspaces: list[str]) -> None:
        """`workspaces` is read again for each request."""
        self.log = CallLog()
        self._console = console
        self._random = random.Random(f"callers {seed}")  # noqa: S311 - repeatable on purpose, not a secret
        self._workspaces = workspaces
        self._numbers = 0
        self._generations: dict[str, int] = {}
        self._kinds: dict[Callable[[str], Awaitable[None]], int] = {
            self._recreate_by_signal: 6,
            self._recreate_by_update: 6,
            self._twice: 2,
            self.delegate: 14,
            self._stop_or_start: 2,
            self._delete: 1,
            self._freeze: 1,
            self._declare_dead: 1,
            self._nonsense: 1,
            self._api_token: 1,
            self._call_without_credentials: 3,
        }

    async def call_until(self, over: asyncio.Event) -> None:
        """Send requests until the event is set."""
        await asyncio.gather(*(self._caller(over) for _ in range(CALLERS)))

    async def trigger(self, workspace: str) -> None:
        """Request a recreate, so that an AWS fault takes effect."""
        self._generations[workspace] = await self._generation(workspace)
        await self._signalled(workspace, self._asked(workspace, self._generations[workspace], "admin:alice"))

    async def operator_request(self, workspace: str, name: str, /, **payload: object) -> None:
        """Send an operator's update, and retry until it is answered."""
        while True:
            try:
                await self._updated(workspace, name, {"requested_by": "admin:carol", **payload})
            except UNAVAILABLE:
                await asyncio.sleep(0.5)
            else:
                return

    async def _caller(self, over: asyncio.Event) -> None:
        while not over.is_set():
            [kind] = self._random.choices(list(self._kinds), weights=list(self._kinds.values()))
            workspace = self._random.choice(self._workspaces)
            try:
                async with asyncio.timeout(ANSWER_SECONDS):
                    await kind(workspace)
            except UNAVAILABLE:
                pass
            await asyncio.sleep(self._random.uniform(*PAUSE_SECONDS))

    def _asked(self, workspace: str, observed: int | None, source: str) -> dict[str, object]:
        self._numbers += 1
        return {
            "requested_by": source,
            "reason": f"request {self._numbers} of the run",
            "observed_generation": observed,
            "request_id": f"{workspace}-{self._numbers}",
            "force": source.startswith("admin"),
        }

    async def _some_recreate(self, workspace: str) -> dict[str, object]:
        now = self._generations[workspace] = await self._generation(workspace)
        observed = self._random.choice([None, now - 1, now, now, now + 1])
        return self._asked(workspace, max(observed, 0) if observed is not None else None, self._source())

    def _source(self) -> str:
        return self._random.choice(SOURCES)

    async def _recreate_by_signal(self, workspace: str) -> None:
        await self._signalled(workspace, await self._some_recreate(workspace))

    async def _recreate_by_update(self, workspace: str) -> None:
        await self._updated(workspace, "request_recreate", await self._some_recreate(workspace))

    async def _twice(self, workspace: str) -> None:
        """Send the same request from a sender without a response, at the same time."""
        payload = await self._some_recreate(workspace)
        await asyncio.gather(
            self._signalled(workspace, payload), self._updated(workspace, "request_recreate", payload)
        )

    async def _stop_or_start(self, workspace: str) -> None:
        kind = self._random.choice(["stop", "start", "start"])
        self._numbers += 1
        payload: dict[str, object] = {
            "requested_by": self._source(),
            "request_id": f"{workspace}-{self._numbers}",
        }
        if self._random.random() < 0.5:
            await self._signalled(workspace, payload, kind)
        else:
            await self._updated(workspace, f"request_{kind}", payload)

    async def _delete(self, workspace: str) -> None:
        if self._random.random() < 0.2:  # its replacement starts only after the round
            self._numbers += 1
            payload: dict[str, object] = {"requested_by": self._source()}
            await self._updated(
                workspace, "request_delete", {**payload, "request_id": f"{workspace}-{self._numbers}"}
            )

    async def _freeze(self, workspace: str) -> None:
        self.log.counts["freeze"] += 1
        await self._console.signal(
            workspace, "freeze", requested_by="admin:bob", reason="migrating the network", seconds=3
        )

    async def _declare_dead(self, workspace: str) -> None:
        """Send `declare_dead`, which must be refused: the termination is not in doubt."""
        boxes = await asyncio.to_thread(self._console.aws.instances, workspace)
        if boxes:
            self._numbers += 1
            await self._updated(
                workspace,
                "declare_dead",
                {
                    "instance_id": self._random.choice(boxes).instance_id,
                    "requested_by": "admin:bob",
                    "request_id": f"{workspace}-{self._numbers}",
                },
            )

    async def _nonsense(self, workspace: str) -> None:
        self.log.counts["nonsense"] += 1
        await self._console.signal(workspace, "recreate", observed_generatoin=1, reason=7)

    async def delegate(self, workspace: str) -> None:
        """Delegate work, often twice with the same key; both must get the same response."""
        target = self._random.choice([name for name in self._workspaces if name != workspace])
        self._numbers += 1
        body = {
            "target_id": target,
            "task": f"part {self._numbers}: {self._random.choice(REASON_WORDS)}",
            "idempotency_key": f"key-{self._numbers}",
            "idempotent": self._random.random() < 0.7,
        }
        for _ in range(self._random.choice([1, 1, 2])):
            self.log.counts["delegate"] += 1
            answer = await self._console.http.post(f"/workspaces/{workspace}/delegate", json=body)
            if answer.status_code == 202:
                delegation = PromisedDelegation(
                    delegation_id=answer.json()["delegation_id"], target=target, at=time.time()
                )
                self.log.delegated.append(delegation)

    async def _api_token(self, workspace: str) -> None:
        self.log.counts["api token"] += 1
        answer = await self._console.http.post(f"/workspaces/{workspace}/tokens", json={"name": "a tool"})
        if answer.status_code == 201:
            self.log.secrets[f"an API token of {workspace}"] = answer.json()["auth_token"]

    async def _call_without_credentials(self, workspace: str) -> None:
        """Request a token without evidence, with malformed evidence, or with another workspace's token."""
        bearer = self._random.choice(["", "x" * 43, "ob1.k1.1." + "y" * 43, *self.log.secrets.values()])
        self.log.counts["unauthorized"] += 1
        async with httpx2.AsyncClient(
            base_url=self._console.http.base_url, timeout=10, trust_env=False
        ) as stranger:
            answer = await stranger.post(
                "/registry/register",
                json={"id": workspace, "url": ""},
                headers={"Authorization": f"Bearer {bearer}"} if bearer else {},
            )
        self.log.unauthorized_attempts.append(
            UnauthorizedAttempt(
                workspace=workspace,
                at=time.time(),
                status=answer.status_code,
                got_token="auth_token" in answer.text,
            )
        )

    async def _signalled(self, workspace: str, payload: dict[str, object], name: str = "recreate") -> None:
        self.log.counts[f"{name}, signal"] += 1
        await self._console.signal(workspace, name, **payload)
        self._remember(workspace, payload, None)

    async def _updated(self, workspace: str, name: str, payload: dict[str, object]) -> None:
        self.log.counts[f"{name.removeprefix('request_')}, update"] += 1
        async with asyncio.timeout(ANSWER_SECONDS):
            answer = await self._console.ask(workspace, name, **payload)
        self._remember(workspace, {"request_id": answer.request_id}, str(answer.outcome))

    def _remember(self, workspace: str, payload: dict[str, object], outcome: str | None) -> None:
        self.log.sent.append(
            SentRequest(
                workspace=workspace, request_id=str(payload["request_id"]), at=time.time(), outcome=outcome
            )
        )

    async def _generation(self, workspace: str) -> int:
        """Return the current generation, or the last known one while the database is down."""
        try:
            rows = await self._console.rows(
                "SELECT generation FROM workspaces WHERE workspace_id = %s", workspace
            )
        except psycopg.Error:
            return self._generations.get(workspace, 1)
        return int(str(rows[0]["generation"])) if rows else 1
