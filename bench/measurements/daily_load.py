"""A day of a healthy fleet: database writes of its heartbeats, Temporal events, and the worker's memory.

Plays some heartbeats of each workspace and some rounds of the watchdog at full speed, and scales them to a
day. The result states the sample and the factors.
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
from workflows.shared.names import WATCHDOG_TYPE, WORKFLOW_TYPE

BEAT_SECONDS, WATCHDOG_INTERVAL_SECONDS, DAY_SECONDS = 30, 30, 86_400
"""The product's default interval; a day has 2,880 of each."""

OURS = {WATCHDOG_TYPE, "SweepWorkflow", "RepairWorkflow"}
"""Types of workflows that serve the whole fleet."""

SETTINGS = {
    "WATCHDOG_INTERVAL_SECONDS": "1",
    # All heartbeats are played at once; the silence afterwards must not make them stale.
    "HEARTBEAT_STALE_SECONDS": "900",
    "STALE_RECREATE_SECONDS": "1800",
    "ORPHAN_SWEEP_INTERVAL_SECONDS": "86400",
    "REPAIR_INTERVAL_SECONDS": "86400",
    "EC2_MUTATIONS_PER_SECOND": "1000",
    "LOG_FORMAT": "json",
}
"""The shortest watchdog interval; otherwise as in production."""

ROUNDS_SECONDS = 300.0
"""Limit for the watchdog's rounds, one per second, on a machine with other work."""

MIB = 2**20


@dataclass(slots=True, kw_only=True)
class Day:
    """The measured values."""

    heartbeats: int = 0
    rounds: int = 0
    writes_per_heartbeat: float = 0.0
    wal_per_heartbeat: float = 0.0
    hot_percent: float = 0.0
    events: int = 0
    """Of workspace workflows, while the day was played."""
    events_per_round: float = 0.0
    others: Counter[str] = field(default_factory=Counter)
    """Workflows that started meanwhile, by type, without the fleet's rounds."""
    sizes: list[tuple[int, float]] = field(default_factory=list)
    """Of the database, in MiB, by workspaces."""
    grown: float = 0.0
    """By the day's heartbeats, in MiB."""
    memory: list[tuple[int, float]] = field(default_factory=list)
    """Of the worker, in MiB, by cached workflows."""


def run(size: Size) -> Result:
    """Run the benchmark."""
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
        # Writes about their start are still in progress.
        await eventually(lambda: _moving(console, names), lambda moving: not moving)
        before = await _lengths(console, names)
        earlier = await _rounds(console)
        await asyncio.to_thread(_play_heartbeats, size, stack, day, request_bytes.heartbeats(boxes))
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


def _play_heartbeats(size: Size, stack: Stack, day: Day, calls: list[Call]) -> None:
    """Play the heartbeats and measure what PostgreSQL wrote."""
    port = int(stack.register_api_url.rpartition(":")[2])
    url, size_before = stack.database_url, _database_size(stack)
    writes, wal = write_transactions(url), _wal(url)
    for _ in range(size.day_heartbeats):
        job = Job(
            way="each", port=port, path=request_bytes.HEARTBEAT, calls=calls, connections=size.connections
        )
        day.heartbeats += serving.load(job).answers[200]
    day.writes_per_heartbeat = (write_transactions(url) - writes) / day.heartbeats
    day.wal_per_heartbeat = (_wal(url) - wal) / day.heartbeats
    day.grown = _database_size(stack) - size_before
    day.hot_percent = _one(
        url,
        "SELECT 100.0 * n_tup_hot_upd / n_tup_upd FROM pg_stat_user_tables WHERE relname = 'heartbeats'",
    )


async def _lengths(console: Console, names: list[str]) -> dict[str, int]:
    return {name: (await console.workflow(name).describe()).history_length for name in names}


async def _moving(console: Console, names: list[str]) -> bool:
    """Whether a history grows within a second; there is no other sign of rest."""
    before = await _lengths(console, names)
    await asyncio.sleep(1)
    return before != await _lengths(console, names)


async def _rounds(console: Console) -> dict[str, int]:
    """Return the completed watchdog rounds with their events."""
    query = f"WorkflowType = '{WATCHDOG_TYPE}' AND ExecutionStatus = 'Completed'"
    return {each.run_id: each.history_length or 0 async for each in console.client.list_workflows(query)}


async def _others(console: Console) -> Counter[str]:
    """Return the other workflows by type: neither workspaces nor fleet rounds."""
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
            f"{fleet:,} recorded workspaces, and {online:,} more with workflows and boxes that "
            f"register, send heartbeats and answer their canary. A day has {a_day:,} heartbeats "
            f"per recorded workspace; {size.day_heartbeats} of each were played, {day.heartbeats:,} in all, "
            f"as fast as one register API accepts them. It has {a_day:,} rounds of the watchdog; "
            f"{day.rounds} were played, one per second. Writes per hour are writes per heartbeat "
            f"× {fleet:,} × {3600 // BEAT_SECONDS}. The watchdog's events per day are those of a "
            f"round × {a_day:,}. Workspace events are as observed."
        ),
        against="Goals only: a healthy fleet causes no workflow events, and no query grows with the fleet.",
        figures=(
            Figure(name="workspace events during the run", value=day.events),
            Figure(name="events of one round of the watchdog", value=day.events_per_round),
            Figure(name="events of the watchdog in a day", value=day.events_per_round * a_day),
            Figure(name="write transactions per heartbeat", value=day.writes_per_heartbeat),
            Figure(name="write transactions per hour", value=day.writes_per_heartbeat * per_hour),
            Figure(name="WAL per heartbeat", value=day.wal_per_heartbeat, unit="bytes"),
            Figure(name="WAL per hour", value=day.wal_per_heartbeat * per_hour / MIB, unit="MiB"),
            Figure(name="heartbeat updates without index changes (HOT)", value=day.hot_percent, unit="%"),
            Figure(name="the database", value=day.sizes[-1][1], unit="MiB"),
            Figure(name="its growth by the played heartbeats", value=day.grown, unit="MiB"),
            Figure(
                name="the worker's memory per cached workflow",
                value=(day.memory[-1][1] - day.memory[0][1]) / (online - day.memory[0][0]),
                unit="MiB",
            ),
        ),
        lines=(
            Line(name="the worker's memory, by cached workflows", unit="MiB", points=tuple(day.memory)),
            Line(name="the database", unit="MiB", points=tuple(day.sizes)),
            *watched.lines,
        ),
        goals=(
            Goal(text="events of healthy workspaces", seen=day.events, relation="==", limit=0),
            Goal(
                text="workflows started on a healthy day, without the fleet's rounds",
                seen=day.others.total(),
                relation="==",
                limit=0,
            ),
            *watched.goals,
        ),
        profiles=(watched.profile,),
        tables=(watched.table,),
        notes=(
            "A worker caches at most 1,000 workflows (the SDK's limit). Other workflows use no "
            "memory until something happens to them, so its memory stops growing there.",
        ),
    )
