"""Heartbeats of one register API, compared with constant responses and with one database connection."""

import json
from itertools import pairwise
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from bench.load import request_bytes, serving
from bench.load.load import Call, Job, LoadResult
from bench.load.serving import Servers, sustained
from bench.parts.fixtures import seed_workspaces
from bench.parts.results import Comparison, Figure, Goal, Line, Profile, Result
from bench.parts.size import Size

OF_CONSTANT, OF_ONE_CONNECTION, WRITES = 0.5, 1.0, 1.0
"""The goals: ratios, and write transactions per heartbeat."""

PACE = 0.5
"""Share of the maximum throughput at which latencies are measured."""

SHOWN_SHARES = 10


def run(size: Size) -> Result:
    """Run the benchmark."""
    with serving.served() as servers:
        return _measured(size, servers)


def _measured(size: Size, servers: Servers) -> Result:
    calls: list[Call] = []
    names: list[str] = []
    growth: list[tuple[int, float]] = []
    for before, fleet in pairwise((0, *size.fleets)):
        new = seed_workspaces(
            servers.database_url,
            server_keys=servers.server_keys,
            names=[f"ws-{number}" for number in range(before, fleet)],
        )
        calls += request_bytes.heartbeats(new)
        names += [each.workspace_id for each in new]
        growth.append((fleet, _beats(size, servers.api_port, calls).per_second))
    ours: list[LoadResult] = []
    constant: list[LoadResult] = []
    rows: list[float] = []
    writes: list[float] = []
    for _ in range(size.rounds):
        before = serving.write_transactions(servers.database_url)
        ours.append(_beats(size, servers.api_port, calls))
        written = serving.write_transactions(servers.database_url) - before
        writes.append(written / ours[-1].answers[200])
        constant.append(_beats(size, servers.constant_port, calls))
        rows.append(request_bytes.updates_per_second(servers.database_url, names, seconds=size.load_seconds))
    rates = [result.per_second for result in ours]
    paced = serving.load(
        Job(
            way="paced",
            port=servers.api_port,
            path=request_bytes.HEARTBEAT,
            calls=calls,
            connections=size.connections,
            seconds=size.load_seconds,
            rate=PACE * median(rates),
        )
    )
    against_constant = Comparison(
        name="heartbeats against a constant",
        unit="heartbeats/s",
        ours="register API",
        theirs="the same API, a constant",
        rounds=tuple(zip(rates, (result.per_second for result in constant), strict=True)),
    )
    against_rows = Comparison(
        name="heartbeats against one connection",
        unit="heartbeats/s",
        ours="register API",
        theirs="one connection, row by row",
        rounds=tuple(zip(rates, rows, strict=True)),
    )
    return Result(
        name="heartbeats",
        title="Heartbeats of one register API",
        work=(
            f"One API process; {size.connections} keep-alive connections, each with a call in "
            f"progress; {size.fleets[-1]:,} boxes in turn, a full heartbeat with a live token "
            f"each; PostgreSQL with fsync. {size.rounds} rounds of {size.load_seconds:g} s per "
            "side."
        ),
        against=(
            "The ceiling is the same API in the same process with a constant handler: routing, "
            "limits, counters and headers, but no JSON body, no authentication, no database. The "
            "other is a single psycopg connection that updates one row of the same table at a "
            "time, each with its own commit."
        ),
        comparisons=(against_constant, against_rows),
        figures=(
            Figure(name="write transactions per heartbeat", value=median(writes)),
            Figure(name="p50 at full load", value=median(result.p50_ms for result in ours), unit="ms"),
            Figure(name="p99 at full load", value=median(result.p99_ms for result in ours), unit="ms"),
            Figure(name=f"p50 at {paced.per_second:,.0f} heartbeats/s", value=paced.p50_ms, unit="ms"),
            Figure(name=f"p99 at {paced.per_second:,.0f} heartbeats/s", value=paced.p99_ms, unit="ms"),
            Figure(name="boxes per process, at a heartbeat every 30 s", value=median(rates) * 30),
            Figure(
                name="processor time of the load generator, with Onebox", value=_processor(ours), unit="%"
            ),
            Figure(
                name="processor time of the load generator, with the constant",
                value=_processor(constant),
                unit="%",
            ),
        ),
        lines=(Line(name="heartbeats per second", unit="heartbeats/s", points=tuple(growth)),),
        goals=(
            Goal(
                text="heartbeats per second, relative to a constant",
                seen=against_constant.ratio.median,
                relation=">=",
                limit=OF_CONSTANT,
            ),
            Goal(
                text="heartbeats per second, relative to one connection",
                seen=against_rows.ratio.median,
                relation=">",
                limit=OF_ONE_CONNECTION,
            ),
            Goal(text="write transactions per heartbeat", seen=median(writes), relation="<", limit=WRITES),
        ),
        profiles=(_profile(size, servers, calls),),
        notes=(_machine_note(median(writes)),),
    )


def _machine_note(writes_per_heartbeat: float) -> str:
    """Explain the machine's influence on the ratios."""
    return (
        f"{1 / writes_per_heartbeat:.0f} heartbeats shared a transaction: those that arrived "
        "during the previous one. The slower Python is relative to PostgreSQL and its disk, "
        "the fewer heartbeats share a transaction, and the higher is each one's share of its "
        "cost. One connection that writes row by row gains from that."
    )


def _beats(size: Size, port: int, calls: list[Call]) -> LoadResult:
    return sustained(
        port, request_bytes.HEARTBEAT, calls, connections=size.connections, seconds=size.load_seconds
    )


def _processor(result: list[LoadResult]) -> float:
    return 100 * median(each.processor_seconds / each.seconds for each in result)


def _profile(size: Size, servers: Servers, calls: list[Call]) -> Profile:
    """Profile another process, because a profiler slows its process."""
    with TemporaryDirectory() as directory:
        file = Path(directory) / "shares.json"
        with serving.beside(servers.stack, "bench.load.profiled", "profiled", str(file)) as port:
            _beats(size, port, calls)
        shares: dict[str, float] = json.loads(file.read_text())
    return Profile(
        of="the API's process under heartbeats, by package (cProfile overstates Python functions)",
        shares=tuple(list(shares.items())[:SHOWN_SHARES]),
    )
