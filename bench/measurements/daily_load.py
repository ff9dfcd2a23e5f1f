"""A day of a healthy fleet: what its beats write, what reaches Temporal, how much a worker holds.

Compressed: some beats of each workspace and some rounds of the watchdog are played, as fast as they go, and
scaled by how many there are in a day. What is played and the factors stand in the result.
"""

import asyncio
from collections import Counter
from dataclasses import dataclass, field
from statistics import median

import psutil
import psycopg

from bench.load import request_bytes, serving
from bench.load.boxes import simulated_boxes
from bench.load.load import Call, Job
from bench.load.serving import write_transactions
from bench.measurements import watchdog
from bench.measurements.watchdog import WatchdogResult
from bench.parts.fixtures import SeededWorkspace, seed_workspaces
from bench.parts.results import Figure, Goal, Line, Result
from bench.parts.size import Size
from bench.parts.workspaces import bring_online
from devstack.console import Console, connected, eventually
from devstack.stack import PARTS, Stack
from workflows.workspace.messages import WATCHDOG_TYPE, WORKFLOW_TYPE

BEAT_SECONDS, WATCHDOG_INTERVAL_SECONDS, DAY_SECONDS = 30, 30, 86_400
"""By the product's defaults; a day has 2,880 of each."""

OURS = {WATCHDOG_TYPE, "SweepWorkflow", "RepairWorkflow"}
"""Types of workflows that go round for the whole fleet."""

SETTINGS = {
    "WATCHDOG_INTERVAL_SECONDS": "1",
    # Beats are played at once, and none comes after them: that is no silence.
    "HEARTBEAT_STALE_SECONDS": "900",
    "STALE_RECREATE_SECONDS": "1800",
    "ORPHAN_SWEEP_INTERVAL_SECONDS": "86400",
    "REPAIR_INTERVAL_SECONDS": "86400",
    "EC2_MUTATIONS_PER_SECOND": "1000",
    "LOG_FORMAT": "json",
}
"""The watchdog as often as it may; otherwise as in production."""

ROUNDS_SECONDS = 300.0
"""Within it the watchdog has gone its rounds, one a second, on a machine that has other work, too."""

MIB = 2**20


@dataclass(slots=True, kw_only=True)
class Day:
    """What was measured."""

    beats: int = 0
    rounds: int = 0
    writes_per_beat: float = 0.0
    wal_per_beat: float = 0.0
    hot_percent: float = 0.0
    events: int = 0
    """Of workspaces' workflows, while the day was played."""
    events_per_round: float = 0.0
    others: Counter[str] = field(default_factory=Counter)
    """Workflows that began meanwhile, by type, but for the fleet's rounds."""
    sizes: list[tuple[int, float]] = field(default_factory=list)
    """Of the database, in MiB, by workspaces."""
    grown: float = 0.0
    """By the day's beats, in MiB."""
    memory: list[tuple[int, float]] = field(default_factory=list)
    """Of the worker, in MiB, by workflows that it holds."""


def run(size: Size) -> Result:
    """The benchmark."""
    with Stack(
        free_ports=True,
        fsync=True,
        parts=[part for part in PARTS if part != "boxes"],
        settings=SETTINGS,
        pending_seconds=0,
        terminating_seconds=0,
    ) as stack:
        day = asyncio.run(_run_day(size, stack))
    return _result(size, day, watchdog.measured(size))


async def _run_day(size: Size, stack: Stack) -> Day:
    day = Day()
    async with connected(stack) as console, simulated_boxes(stack):
        started = 0
        for resident in size.resident:
            await bring_online(console, [f"resident-{number}" for number in range(started, resident)])
            started = resident
            day.memory.append((resident, _memory(stack)))
        names = [f"resident-{number}" for number in range(started)]
        boxes: list[SeededWorkspace] = []
        planted = 0
        for fleet in size.fleets:
            boxes += seed_workspaces(
                stack.database_url,
                server_keys=stack.environment["SERVER_KEYS"],
                names=[f"ws-{number}" for number in range(planted, fleet)],
            )
            planted = fleet
            day.sizes.append((fleet, _database_size(stack)))
        # What led to their health is still being written down, for a moment.
        await eventually(lambda: _moving(console, names), lambda moving: not moving)
        before = await _lengths(console, names)
        earlier = await _rounds(console)
        await asyncio.to_thread(_beat, size, stack, day, request_bytes.beats(boxes))
        rounds = await eventually(
            lambda: _rounds(console),
            lambda seen: len(seen) - len(earlier) >= size.day_rounds,
            seconds=ROUNDS_SECONDS,
        )
        day.rounds = len(rounds) - len(earlier)
        day.events = sum((await _lengths(console, names)).values()) - sum(before.values())
        day.events_per_round = median(rounds[each] for each in rounds.keys() - earlier.keys())
        day.others = await _others(console)
    return day


def _beat(size: Size, stack: Stack, day: Day, calls: list[Call]) -> None:
    """Play the beats, and see what PostgreSQL wrote for them."""
    port = int(stack.register_api_url.rpartition(":")[2])
    url, size_before = stack.database_url, _database_size(stack)
    writes, wal = write_transactions(url), _wal(url)
    for _ in range(size.day_beats):
        job = Job(
            way="each", port=port, path=request_bytes.HEARTBEAT, calls=calls, connections=size.connections
        )
        day.beats += serving.load(job).answers[200]
    day.writes_per_beat = (write_transactions(url) - writes) / day.beats
    day.wal_per_beat = (_wal(url) - wal) / day.beats
    day.grown = _database_size(stack) - size_before
    day.hot_percent = _one(
        url,
        "SELECT 100.0 * n_tup_hot_upd / n_tup_upd FROM pg_stat_user_tables WHERE relname = 'heartbeats'",
    )


async def _lengths(console: Console, names: list[str]) -> dict[str, int]:
    return {name: (await console.workflow(name).describe()).history_length for name in names}


async def _moving(console: Console, names: list[str]) -> bool:
    """Whether a history grows within a second: rest is told by nothing but that nothing comes."""
    before = await _lengths(console, names)
    await asyncio.sleep(1)
    return before != await _lengths(console, names)


async def _rounds(console: Console) -> dict[str, int]:
    """The watchdog's rounds that have ended, with their events."""
    query = f"WorkflowType = '{WATCHDOG_TYPE}' AND ExecutionStatus = 'Completed'"
    return {each.run_id: each.history_length or 0 async for each in console.client.list_workflows(query)}


async def _others(console: Console) -> Counter[str]:
    """Workflows by type that are neither a workspace's nor go round."""
    return Counter(
        [
            each.workflow_type
            async for each in console.client.list_workflows()
            if each.workflow_type not in OURS | {WORKFLOW_TYPE}
        ]
    )


def _memory(stack: Stack) -> float:
    return float(psutil.Process(stack.pids["worker"]).memory_info().rss) / MIB


def _database_size(stack: Stack) -> float:
    return _one(stack.database_url, "SELECT pg_database_size(current_database())") / MIB


def _wal(url: str) -> float:
    return _one(url, "SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn")


def _one(url: str, query: str) -> float:
    with psycopg.connect(url) as connection:
        connection.execute("SELECT pg_stat_clear_snapshot()")
        row = connection.execute(query.encode()).fetchone()
    if row is None or row[0] is None:
        raise LookupError(query)
    return float(row[0])


def _result(size: Size, day: Day, watched: WatchdogResult) -> Result:
    fleet, a_day = size.fleets[-1], DAY_SECONDS // BEAT_SECONDS
    per_hour = fleet * 3600 / BEAT_SECONDS
    online = size.resident[-1]
    return Result(
        name="day",
        title="A day of a healthy fleet",
        work=(
            f"{fleet:,} workspaces on record, and {online:,} more that have workflows, and boxes that "
            f"register, beat and answer their canary. Of a day's {a_day:,} beats of each workspace on record "
            f"{size.day_beats} were played, {day.beats:,} in all, as fast as one register API takes them; of "
            f"its {a_day:,} rounds of the watchdog {day.rounds}, one a second. Writes an hour are writes per "
            f"beat × {fleet:,} × {3600 // BEAT_SECONDS}; the watchdog's events in a day are those of a round "
            f"× {a_day:,}; those of workspaces are told as they were seen."
        ),
        against="Goals only: health may cost no workflow events, and no query may grow with the fleet.",
        figures=(
            Figure(name="events of workspaces while it was played", value=day.events),
            Figure(name="events of one round of the watchdog", value=day.events_per_round),
            Figure(name="events of the watchdog in a day", value=day.events_per_round * a_day),
            Figure(name="write transactions per beat", value=day.writes_per_beat),
            Figure(name="write transactions an hour", value=day.writes_per_beat * per_hour),
            Figure(name="WAL per beat", value=day.wal_per_beat, unit="bytes"),
            Figure(name="WAL an hour", value=day.wal_per_beat * per_hour / MIB, unit="MiB"),
            Figure(
                name="beats' updates without a change of any index (HOT)", value=day.hot_percent, unit="%"
            ),
            Figure(name="the database", value=day.sizes[-1][1], unit="MiB"),
            Figure(name="its growth by the beats that were played", value=day.grown, unit="MiB"),
            Figure(
                name="the worker's memory per workflow that it holds",
                value=(day.memory[-1][1] - day.memory[0][1]) / (online - day.memory[0][0]),
                unit="MiB",
            ),
        ),
        lines=(
            Line(name="the worker's memory, by workflows held", unit="MiB", points=tuple(day.memory)),
            Line(name="the database", unit="MiB", points=tuple(day.sizes)),
            *watched.lines,
        ),
        goals=(
            Goal(text="events of healthy workspaces", seen=day.events, relation="==", limit=0),
            Goal(
                text="workflows that a healthy day begins, but for the fleet's rounds",
                seen=day.others.total(),
                relation="==",
                limit=0,
            ),
            *watched.goals,
        ),
        profiles=(watched.profile,),
        tables=(watched.table,),
        notes=(
            "A worker holds 1,000 workflows at the most (the SDK's cache); the others cost it nothing until "
            "something happens to them. So its memory ends growing there.",
        ),
    )
