"""A storm: requests of every kind while processes are killed and AWS misbehaves; then everything settles."""

import asyncio
import os
import random
import signal
import time
from collections.abc import Awaitable

import httpx2
import psycopg
import pytest
from temporalio.client import RPCError, WorkflowUpdateRPCTimeoutOrCancelledError
from typing_extensions import override

from devstack.console import ConditionNotMet, Console, eventually
from devstack.stack import Stack
from workflows.workspace.enums import Intent, Phase
from workflows.workspace.messages import RequestOutcome
from workflows.workspace.requests import OutcomeKind, RequestKind

pytestmark = [pytest.mark.anyio, pytest.mark.storm, pytest.mark.timeout(1200)]

SECONDS = 600.0
"""Maximum; it ends as soon as enough has happened, however slow the machine is."""

CALLERS = 3
"""Concurrent callers; one that waits for a part that is down does not delay the others."""

ENOUGH_KILLS = 12
ENOUGH_GENERATIONS = 3
"""Average per workspace."""

SEED = 2611
SOURCES = ("watchdog", "auto-recovery", "admin:alice")
AWAY = (RPCError, WorkflowUpdateRPCTimeoutOrCancelledError, httpx2.HTTPError, psycopg.Error, ConditionNotMet)
"""Errors that a caller sees while a server is down; the request may or may not have been accepted."""


class Storm:
    """Seeded; keeps its responses, to compare them with the record."""

    def __init__(self, stack: Stack, console: Console, workspaces: list[str]) -> None:
        self.stack, self.console, self.workspaces = stack, console, workspaces
        self.random = random.Random(SEED)
        self.signalled: set[tuple[str, str]] = set()
        self.answered: dict[tuple[str, str], RequestOutcome] = {}
        self.generations = dict.fromkeys(workspaces, 1)
        self.killed = 0
        self._asked = 0
        self._deadline = time.monotonic() + SECONDS

    async def blow(self) -> None:
        callers = [self._requests() for _ in range(CALLERS)]
        await asyncio.gather(*callers, self._kills(), self._faults(), self._boxes())

    @override
    def __str__(self) -> str:
        return (
            f"{self.killed} kills, generations {self.generations}, "
            f"{len(self.answered)} answered, {len(self.signalled)} signalled"
        )

    async def _until_the_end(self, least: float, most: float) -> bool:
        await asyncio.sleep(self.random.uniform(least, most))
        return not self.raged and time.monotonic() < self._deadline

    @property
    def raged(self) -> bool:
        """Whether enough has happened to judge the result."""
        return (
            self.killed >= ENOUGH_KILLS
            and sum(self.generations.values()) >= ENOUGH_GENERATIONS * len(self.workspaces)
            and min(len(self.answered), len(self.signalled)) > 20
        )

    async def _requests(self) -> None:
        while await self._until_the_end(0.1, 0.6):
            self._asked += 1
            workspace, request_id = self.random.choice(self.workspaces), f"storm-{self._asked}"
            now = self.generations[workspace]
            observed = self.random.choice([None, now - 1, now, now, now, now + 1])
            source = self.random.choice(SOURCES)
            asked: dict[str, object] = {
                "requested_by": source,
                "observed_generation": observed,
                "request_id": request_id,
            }
            if self.random.random() < 0.5:
                await self._try(self._signal(workspace, asked))
            else:
                await self._try(self._update(workspace, asked, force=source.startswith("admin")))

    async def _signal(self, workspace: str, asked: dict[str, object]) -> None:
        await self.console.signal(workspace, **asked)
        self.signalled.add((workspace, str(asked["request_id"])))

    async def _update(self, workspace: str, asked: dict[str, object], *, force: bool) -> None:
        answer = await asyncio.wait_for(self.console.ask(workspace, **asked, force=force), 15)
        self.answered[workspace, str(asked["request_id"])] = answer
        self.generations[workspace] = max(self.generations[workspace], answer.generation)

    async def _try(self, call: Awaitable[None]) -> None:
        try:
            await call
        except (*AWAY, TimeoutError):
            return

    async def _kills(self) -> None:
        """The killed part is back before the next kill, which would otherwise have no target."""
        while await self._until_the_end(2, 4):
            name = self.random.choice(["worker", "worker", "api", "postgres", "temporal", "boxes"])
            pid = await asyncio.to_thread(self.stack.wait_ready, name)
            os.kill(pid, signal.SIGKILL)
            self.killed += 1
            await asyncio.to_thread(self.stack.wait_ready, name, other_than=pid)

    async def _faults(self) -> None:
        while await self._until_the_end(1, 3):
            action, fault, code = self.random.choice(
                [
                    ("RunInstances", "lost_answer", None),
                    ("RunInstances", "error", "RequestLimitExceeded"),
                    ("TerminateInstances", "lost_answer", None),
                    ("DescribeInstances", "empty_list", None),
                    ("ChangeResourceRecordSets", "lost_answer", None),
                ]
            )
            self.console.aws.inject(action, fault, code=code)

    async def _boxes(self) -> None:
        while await self._until_the_end(1, 3):
            if boxes := self.stack.boxes:
                box = self.random.choice(boxes)
                try:
                    os.kill(box.pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue


async def settled(console: Console, workspace: str) -> None:
    """Online without help, or after an operator's request where only that helps."""
    try:
        await console.until_phase(workspace, Phase.ONLINE, seconds=120)
    except ConditionNotMet:
        await console.ask(workspace, "request_start", requested_by="admin:alice")
        await console.until_phase(workspace, Phase.ONLINE, seconds=120)


async def test_a_storm_of_requests_and_kills_breaks_no_invariant(stack: Stack, console: Console) -> None:
    workspaces = [f"storm-{number}" for number in range(5)]
    for workspace in workspaces:
        await console.start(workspace)
    storm = Storm(stack, console, workspaces)
    await storm.blow()
    console.aws.clear()
    for name in stack.pids:
        await asyncio.to_thread(stack.wait_ready, name)
    await asyncio.gather(*(settled(console, workspace) for workspace in workspaces))
    assert storm.raged, f"too little happened in {SECONDS:.0f} s: {storm}"

    for workspace in workspaces:
        status, counts = await console.status(workspace), console.aws.counts(workspace)
        assert counts.max_unterminated_at_once == 1, "I1"
        assert counts.alive_now == 1, "I1"
        assert counts.launches >= status.generation
        assert counts.dns_changes <= counts.launches, "I8"
        assert await console.live_tokens(workspace) == [
            {"generation": status.generation, "state": "active"}
        ], "I4"
        accepted = await console.rows(
            "SELECT generation FROM requests WHERE workspace_id = %s AND outcome = %s AND kind = ANY(%s)",
            workspace,
            OutcomeKind.ACCEPTED,
            [RequestKind.RECREATE, RequestKind.START],
        )
        generations = sorted(int(str(row["generation"])) for row in accepted)
        assert generations == list(range(2, status.generation + 1)), "I2: one request for each generation"
        [row] = await console.rows("SELECT intent FROM workspaces WHERE workspace_id = %s", workspace)
        assert row["intent"] == Intent.RUN

    async def missing() -> set[tuple[str, str]]:
        rows = await console.rows("SELECT workspace_id, request_id FROM requests")
        recorded = {(str(row["workspace_id"]), str(row["request_id"])) for row in rows}
        return (storm.signalled | set(storm.answered)) - recorded

    assert await eventually(missing, lambda seen: not seen) == set(), "I2: an outcome is missing"
    for (workspace, request_id), answer in storm.answered.items():
        [row] = await console.rows(
            "SELECT outcome FROM requests WHERE workspace_id = %s AND request_id = %s", workspace, request_id
        )
        assert row["outcome"] == answer.outcome, "I2: told one thing, recorded another"
