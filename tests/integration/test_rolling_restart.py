"""Two workers and two register APIs, restarted in turn under load: nothing is lost, and no call gets a 5xx.

The restart follows docs/deployment.md. It uses its own stack, whose boxes belong to the test.
"""

import asyncio
import random
import sys
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import httpx2
import pytest

from devstack.console import Console, connected, eventually
from devstack.http_client import HttpClient
from devstack.processes import LOCALHOST
from devstack.stack import Stack
from tests.integration.fleet import boxless, going_on
from tests.integration.heartbeats import HEARTBEAT, Answer, Beaters
from workflows.workspace.enums import Phase
from workflows.workspace.messages import RequestOutcome
from workflows.workspace.requests import OutcomeKind

pytestmark = [pytest.mark.anyio, pytest.mark.storm, pytest.mark.timeout(900)]

ROLLED = ("worker", "worker-2", "api", "api-2")
ENDS_WITH = {"worker": "worker.stopped", "api": "api.stopped"}
WORKSPACES = [f"ws-{number:02}" for number in range(40)]
REQUESTS = 200
CALLERS = 8
PAUSE_SECONDS = 1.5
"""Maximum pause between a caller's requests; they are spread over the time of a restart."""

BEATS_PER_SECOND = 200.0

SEED = 611
SOURCES = ("watchdog", "auto-recovery", "service:billing", "admin:alice")
SECONDS = 300.0
"""Timeout for a much slower machine."""

REPLACED = {(410, "superseded"), (503, "platform_unavailable")}
"""Responses to a box once the transaction that replaces it has begun; the second one on a machine so
slow that a heartbeat waits two seconds for the transaction."""

SETTINGS = {
    "CANARY": "off",
    "SHUTDOWN_DELAY_SECONDS": "5",
    # Fleet limits have their own tests.
    "FLEET_FREEZE_PERCENT": "100",
    "FLEET_MAX_CONCURRENT_PERCENT": "100",
    "FLEET_MAX_CONCURRENT_RECREATES": "1000",
    "HEARTBEAT_STALE_SECONDS": "60",
    "STALE_RECREATE_SECONDS": "300",
    "REGISTER_DEADLINE_SECONDS": "300",
}


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    with boxless(SETTINGS, workers=2, apis=2) as stack:
        yield stack


@asynccontextmanager
async def beating(console: Console, stack: Stack) -> AsyncIterator[Beaters]:
    """The boxes, on connections that they keep open as long as possible."""
    url = urlsplit(stack.register_api_url)
    assert url.port is not None
    with closing(HttpClient(LOCALHOST, url.port, local_address=LOCALHOST)) as exchanges:
        async with httpx2.AsyncClient(base_url=stack.register_api_url, trust_env=False) as http:
            beaters = Beaters(
                aws=console.aws, http=http, rate=BEATS_PER_SECOND, exchanges=exchanges, look_seconds=0.5
            )
            async with going_on(beaters.run()), going_on(beaters.beat()):
                yield beaters


@dataclass(kw_only=True)
class Callers:
    """Callers that request recreates in every way and keep the responses. No call may fail."""

    console: Console
    chance: random.Random = field(default_factory=lambda: random.Random(SEED))
    told: dict[tuple[str, str], RequestOutcome | None] = field(default_factory=dict)
    """By workspace and request ID; a signal has no response."""
    _generations: dict[str, int] = field(default_factory=lambda: dict.fromkeys(WORKSPACES, 1))

    async def ask(self, number: int) -> None:
        """Send this many requests, by several callers at once."""
        numbers = iter(range(number))
        await asyncio.gather(*(self._caller(numbers) for _ in range(CALLERS)))

    async def _caller(self, numbers: Iterator[int]) -> None:
        for _ in numbers:
            await self._once()
            await asyncio.sleep(self.chance.uniform(0, PAUSE_SECONDS))

    async def _once(self) -> None:
        workspace, request_id = self.chance.choice(WORKSPACES), f"r-{len(self.told) + 1:03}"
        source = self.chance.choice(SOURCES)
        now = self._generations[workspace]
        asked: dict[str, object] = {
            "requested_by": source,
            "reason": "a rolling restart",
            "request_id": request_id,
            "observed_generation": self.chance.choice([None, now - 1, now, now, now, now, now + 1]),
            "force": source.startswith("admin"),
        }
        self.told[workspace, request_id] = None
        if self.chance.random() < 0.5:
            await self.console.signal(workspace, **asked)
            return
        outcome = await asyncio.wait_for(self.console.ask(workspace, **asked), SECONDS)
        self.told[workspace, request_id] = outcome
        self._generations[workspace] = max(now, outcome.generation)


async def restarted(stack: Stack, name: str) -> None:
    """Restart like an operator: SIGTERM, an orderly end, a new process that is ready before the next step."""
    before = stack.pids[name]
    ended = _ends(stack, name)
    await asyncio.to_thread(stack.restart, name)
    assert await asyncio.to_thread(stack.wait_ready, name) != before
    assert _ends(stack, name) == ended + 1, f"{name} did not end in order"


def _ends(stack: Stack, name: str) -> int:
    return stack.log(name).read_text().count(f'"{ENDS_WITH[name.partition("-")[0]]}"')


async def test_a_rolling_restart_of_everything_loses_no_request_and_no_beat(stack: Stack) -> None:
    async with connected(stack) as console:
        async with beating(console, stack) as beaters:
            for workspace in WORKSPACES:
                await console.start(workspace)
            await all_online(console)
            callers, told = Callers(console=console), []
            for name in ROLLED:
                before, started = len(beaters.answers), asyncio.get_running_loop().time()
                async with asyncio.TaskGroup() as tasks:
                    tasks.create_task(callers.ask(REQUESTS // len(ROLLED)))
                    tasks.create_task(restarted(stack, name))
                calls = len(beaters.answers) - before
                assert calls > 0, name
                seconds = asyncio.get_running_loop().time() - started
                told.append(f"{name}: {calls} calls in {seconds:.1f} s")
            assert len(callers.told) == REQUESTS
            await no_request_was_lost(console, callers)
            await all_online(console)
        sys.stdout.write(f"offered meanwhile: {', '.join(told)}\n")  # shown by -s, and with a failure

        for workspace in WORKSPACES:
            await invariants_hold(console, workspace)
        await every_box_was_served(console, beaters.answers)
        upstreams = stack.balanced()
        assert all(each.answered > 0 and each.failed == 0 for each in upstreams.values()), upstreams
        for name in ROLLED:
            assert '"level": "error"' not in stack.log(name).read_text(), name


async def all_online(console: Console) -> None:
    """Nothing is in progress, and all boxes are online."""

    async def phases() -> Counter[str]:
        rows = await console.rows(
            "SELECT CASE WHEN w.generation = g.generation THEN w.phase END AS phase"
            " FROM workspaces w JOIN generations g USING (workspace_id) WHERE g.superseded_at IS NULL"
        )
        return Counter(str(row["phase"]) for row in rows)

    everyone = Counter({Phase.ONLINE.value: len(WORKSPACES)})
    await eventually(phases, lambda seen: seen == everyone, seconds=SECONDS)
    for workspace in WORKSPACES:
        await console.until_phase(workspace, Phase.ONLINE, seconds=SECONDS)


async def no_request_was_lost(console: Console, callers: Callers) -> None:
    """I2: each has one recorded outcome, equal to the response."""

    async def recorded() -> dict[tuple[str, str], str]:
        rows = await console.rows(
            "SELECT workspace_id, request_id, outcome FROM requests WHERE request_id LIKE 'r-%%'"
        )
        return {(str(row["workspace_id"]), str(row["request_id"])): str(row["outcome"]) for row in rows}

    outcomes = await eventually(recorded, lambda seen: seen.keys() >= callers.told.keys(), seconds=SECONDS)
    assert outcomes.keys() == callers.told.keys()
    for request, outcome in callers.told.items():
        assert outcome is None or outcome.outcome == outcomes[request], request
    kinds = Counter(outcomes.values())
    assert {OutcomeKind.ACCEPTED, OutcomeKind.JOINED, OutcomeKind.STALE} <= kinds.keys(), kinds


async def invariants_hold(console: Console, workspace: str) -> None:
    """I1, I2, I4, I8: one box at a time, and one generation per accepted request."""
    status = await console.status(workspace)
    counts = await asyncio.to_thread(console.aws.counts, workspace)
    assert (counts.max_unterminated_at_once, counts.alive_now) == (1, 1), f"I1: {workspace}"
    accepted = await console.rows(
        "SELECT generation FROM requests WHERE workspace_id = %s AND outcome = %s ORDER BY generation",
        workspace,
        OutcomeKind.ACCEPTED,
    )
    assert [row["generation"] for row in accepted] == list(range(2, status.generation + 1)), (
        f"I2: {workspace}"
    )
    assert counts.launches == status.generation, f"I2: {workspace}"
    assert counts.dns_changes == status.generation, f"I8: {workspace}"
    assert await console.live_tokens(workspace) == [{"generation": status.generation, "state": "active"}], (
        f"I4: {workspace}"
    )


async def every_box_was_served(console: Console, answers: list[Answer]) -> None:
    """I5: 2xx, unless it was superseded; a registering box may have to retry."""
    rows = await console.rows(
        "SELECT workspace_id, generation, extract(epoch FROM superseded_at)::float8 AS at FROM generations"
        " WHERE superseded_at IS NOT NULL"
    )
    superseded = {(row["workspace_id"], row["generation"]): float(str(row["at"])) for row in rows}

    def is_right(answer: Answer) -> bool:
        if 200 <= answer.status < 300:
            return True
        since = superseded.get((answer.workspace, answer.generation))
        if since is not None and since <= answer.at and (answer.status, answer.code) in REPLACED:
            return True
        return answer.path != HEARTBEAT and answer.code == "instance_not_ready"

    assert [answer for answer in answers if not is_right(answer)] == []
    beats = [answer for answer in answers if answer.path == HEARTBEAT]
    assert {answer.workspace for answer in beats} == set(WORKSPACES)
