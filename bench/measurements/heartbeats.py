"""Beats: how many one register API takes in, against its own server with a constant, and one connection."""

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
"""The goals: ratios, and write transactions per beat."""

PACE = 0.5
"""Of what it takes in at most: the load at which latencies are told."""

SHOWN_SHARES = 10


def run(size: Size) -> Result:
    """The benchmark."""
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
        calls += request_bytes.beats(new)
        names += [each.workspace_id for each in new]
        growth.append((fleet, _beats(size, servers.api_port, calls).per_second))
    ours: list[LoadResult] = []
    constant: list[LoadResult] = []
    bare: list[LoadResult] = []
    rows: list[float] = []
    writes: list[float] = []
    for _ in range(size.rounds):
        before = serving.write_transactions(servers.database_url)
        ours.append(_beats(size, servers.api_port, calls))
        written = serving.write_transactions(servers.database_url) - before
        writes.append(written / ours[-1].answers[200])
        constant.append(_beats(size, servers.constant_port, calls))
        bare.append(_beats(size, servers.bare_port, calls))
        rows.append(request_bytes.updates_per_second(servers.database_url, names, seconds=size.load_seconds))
    rates = [told.per_second for told in ours]
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
        name="beats against a constant",
        unit="beats/s",
        ours="register API",
        theirs="the same API, a constant",
        rounds=tuple(zip(rates, (told.per_second for told in constant), strict=True)),
    )
    against_bare = Comparison(
        name="beats against the bare server",
        unit="beats/s",
        ours="register API",
        theirs="uvicorn alone, a constant",
        rounds=tuple(zip(rates, (told.per_second for told in bare), strict=True)),
    )
    against_rows = Comparison(
        name="beats against one connection",
        unit="beats/s",
        ours="register API",
        theirs="one connection, row by row",
        rounds=tuple(zip(rates, rows, strict=True)),
    )
    return Result(
        name="heartbeats",
        title="Heartbeats of one register API",
        work=(
            f"One API process, {size.connections} kept connections with a call under way on each, "
            f"{size.fleets[-1]:,} boxes in turn, a full beat with a live token each; PostgreSQL with fsync. "
            f"{size.rounds} rounds of {size.load_seconds:g} s a side."
        ),
        against=(
            "The ceiling is the same API in the same process, whose handler answers a constant to the same "
            "request: routing, limits, counters and headers, but no body read as JSON, no authentication, no "
            "database. The bare server has no application at all: what Python's HTTP server and the kernel "
            "take. The last is one psycopg connection that updates one row of the same table at a time, each "
            "with its commit."
        ),
        comparisons=(against_constant, against_bare, against_rows),
        figures=(
            Figure(name="write transactions per beat", value=median(writes)),
            Figure(name="p50 at full load", value=median(told.p50_ms for told in ours), unit="ms"),
            Figure(name="p99 at full load", value=median(told.p99_ms for told in ours), unit="ms"),
            Figure(name=f"p50 at {paced.per_second:,.0f} beats/s", value=paced.p50_ms, unit="ms"),
            Figure(name=f"p99 at {paced.per_second:,.0f} beats/s", value=paced.p99_ms, unit="ms"),
            Figure(name="boxes that beat every 30 s, for one process", value=median(rates) * 30),
            Figure(name="the load's own processor, against ours", value=_processor(ours), unit="%"),
            Figure(
                name="the load's own processor, against the constant", value=_processor(constant), unit="%"
            ),
        ),
        lines=(Line(name="beats per second", unit="beats/s", points=tuple(growth)),),
        goals=(
            Goal(
                text="beats per second, by those of a constant",
                seen=against_constant.ratio.median,
                relation=">=",
                limit=OF_CONSTANT,
            ),
            Goal(
                text="beats per second, by rows of one connection",
                seen=against_rows.ratio.median,
                relation=">",
                limit=OF_ONE_CONNECTION,
            ),
            Goal(text="write transactions per beat", seen=median(writes), relation="<", limit=WRITES),
        ),
        profiles=(_profile(size, servers, calls),),
        notes=(_machine_note(median(writes)),),
    )


def _machine_note(writes_per_beat: float) -> str:
    """What the machine has to do with the ratios."""
    return (
        f"{1 / writes_per_beat:.0f} beats shared a transaction: those that came in while the one before was "
        "under way. The slower Python is beside PostgreSQL and its disk, the fewer they are, and the more of "
        "the transaction's cost each of them bears, while one connection that writes row by row gains."
    )


def _beats(size: Size, port: int, calls: list[Call]) -> LoadResult:
    return sustained(
        port, request_bytes.HEARTBEAT, calls, connections=size.connections, seconds=size.load_seconds
    )


def _processor(told: list[LoadResult]) -> float:
    return 100 * median(each.processor_seconds / each.seconds for each in told)


def _profile(size: Size, servers: Servers, calls: list[Call]) -> Profile:
    """Of another process: a profiler that runs along makes everything slower."""
    with TemporaryDirectory() as directory:
        file = Path(directory) / "shares.json"
        with serving.beside(servers.stack, "bench.load.profiled", "profiled", str(file)) as port:
            _beats(size, port, calls)
        shares: dict[str, float] = json.loads(file.read_text())
    return Profile(
        of="the API's process under beats, by package (cProfile: Python functions weigh more than C)",
        shares=tuple(list(shares.items())[:SHOWN_SHARES]),
    )
