"""Registrations: first calls of new boxes per second at one register API, and a stampede of them."""

from itertools import pairwise
from statistics import median

from bench.load import request_bytes, serving
from bench.load.load import Job, LoadResult
from bench.load.serving import Servers
from bench.parts.fixtures import SeededWorkspace, seed_workspaces
from bench.parts.results import Comparison, Figure, Goal, Line, Result
from bench.parts.size import Size

ALL = 1.0
"""In a stampede, all boxes must get a token."""


def run(size: Size) -> Result:
    """Run the benchmark."""
    with serving.served() as servers:
        return _measured(size, servers)


def _measured(size: Size, servers: Servers) -> Result:
    growth: list[tuple[int, float]] = []
    for before, fleet in pairwise((0, *size.fleets)):
        names = [f"ws-{number}" for number in range(before, fleet)]
        seed_workspaces(servers.database_url, server_keys=servers.server_keys, names=names)
        new = _launched(servers, f"grown-{fleet}", size.registrations)
        growth.append((fleet, _each(size, servers.api_port, new).per_second))
    ours: list[LoadResult] = []
    constant: list[float] = []
    writes: list[float] = []
    for number in range(size.rounds):
        new = _launched(servers, f"round-{number}", size.registrations)
        before_it = serving.write_transactions(servers.database_url)
        ours.append(_each(size, servers.api_port, new))
        writes.append((serving.write_transactions(servers.database_url) - before_it) / len(new))
        constant.append(_each(size, servers.constant_port, new).per_second)
    rates = [result.per_second for result in ours]
    stampede = _each(
        size,
        servers.api_port,
        _launched(servers, "stampede", size.stampede),
        connections=size.stampede,
    )
    against_constant = Comparison(
        name="registrations against a constant",
        unit="registrations/s",
        ours="register API",
        theirs="the same API, a constant",
        rounds=tuple(zip(rates, constant, strict=True)),
    )
    return Result(
        name="registrations",
        title="Registrations at one register API",
        work=(
            f"The first register call of {size.registrations:,} new boxes over {size.connections} "
            "connections, each with its bootstrap secret: the API mints the token and writes the "
            f"event and the audit log. {size.rounds} rounds. The stampede: {size.stampede:,} "
            "boxes at once, each on its own connection, until each has a token."
        ),
        against=(
            "The same API with a constant handler, as for heartbeats. A registration is a read, a "
            "transaction of several statements under the generation's lock, and a minted token; "
            "it happens once in a box's life."
        ),
        comparisons=(against_constant,),
        figures=(
            Figure(name="write transactions per registration", value=median(writes)),
            Figure(name="p99 at full load", value=median(result.p99_ms for result in ours), unit="ms"),
            Figure(name="stampede: until the last has its token", value=stampede.seconds, unit="s"),
            Figure(name="stampede: p50", value=stampede.p50_ms, unit="ms"),
            Figure(name="stampede: p99", value=stampede.p99_ms, unit="ms"),
            Figure(name="stampede: calls to be retried", value=_others(stampede)),
        ),
        lines=(Line(name="registrations per second", unit="registrations/s", points=tuple(growth)),),
        goals=(
            Goal(
                text="share of the stampede's boxes that got a token",
                seen=stampede.answers[200] / size.stampede,
                relation="==",
                limit=ALL,
            ),
        ),
    )


def _launched(servers: Servers, prefix: str, number: int) -> list[SeededWorkspace]:
    names = [f"{prefix}-{each}" for each in range(number)]
    return list(
        seed_workspaces(servers.database_url, server_keys=servers.server_keys, names=names, online=False)
    )


def _each(
    size: Size, port: int, boxes: list[SeededWorkspace], *, connections: int | None = None
) -> LoadResult:
    return serving.load(
        Job(
            way="each",
            port=port,
            path=request_bytes.REGISTER,
            calls=request_bytes.registers(boxes),
            connections=connections or size.connections,
        )
    )


def _others(result: LoadResult) -> int:
    return sum(number for status, number in result.answers.items() if status != 200)
