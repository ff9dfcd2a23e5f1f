"""The register API's process under load, its ceiling, and the load generator's process."""

import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg

from bench.load.load import Call, Job, LoadResult
from devstack.processes import LOCALHOST, Program, accepts_connections, free_port
from devstack.stack import Stack


class LoadFailed(RuntimeError):
    """The load generator failed; the text is its output."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Servers:
    """One register API with its database, and its ceiling: the same process with constant responses."""

    stack: Stack
    constant_port: int
    """The register API with constant handlers: no evidence, no token, no database."""

    @property
    def database_url(self) -> str:
        """The API's PostgreSQL, with fsync: an answered heartbeat is durable."""
        return self.stack.database_url

    @property
    def server_keys(self) -> str:
        """Keys from which the API derives credentials."""
        return self.stack.environment["SERVER_KEYS"]

    @property
    def api_port(self) -> int:
        """Where the API listens."""
        return int(self.stack.register_api_url.rpartition(":")[2])


@contextmanager
def served() -> Iterator[Servers]:
    """Run PostgreSQL, one register API, and its ceiling for the block."""
    with (
        Stack(free_ports=True, parts=["postgres", "api"], fsync=True) as stack,
        beside(stack, "bench.baselines.http_ceiling", "constant") as constant,
    ):
        yield Servers(stack=stack, constant_port=constant)


@contextmanager
def beside(stack: Stack, module: str, name: str, *arguments: str) -> Iterator[int]:
    """Start another process with the API's settings and its own addresses. Returns where it listens."""
    port = free_port()
    program = Program(
        name,
        [sys.executable, "-m", module, *arguments],
        log=stack.log(name),
        environment=stack.environment
        | {"REGISTER_API_BIND": f"{LOCALHOST}:{port}", "API_METRICS_BIND": f"{LOCALHOST}:{free_port()}"},
        ready=lambda _: accepts_connections(port),
    )
    program.start()
    try:
        yield port
    finally:
        program.stop()


def load(job: Job) -> LoadResult:
    """Run the load in its own process. Raises `LoadFailed`."""
    done = subprocess.run(
        [sys.executable, "-m", "bench.load.load"],
        input=job.model_dump_json(),
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[2],
    )
    if done.returncode != 0:
        raise LoadFailed(done.stderr.strip()[-2_000:])
    return LoadResult.model_validate_json(done.stdout)


def sustained(port: int, path: str, calls: Sequence[Call], *, connections: int, seconds: float) -> LoadResult:
    """Send as many calls as the server answers. Raises `LoadFailed`, also if a status is not 200."""
    result = load(
        Job(
            way="sustained",
            port=port,
            path=path,
            calls=list(calls),
            connections=connections,
            seconds=seconds,
        )
    )
    if result.answers.keys() != {200}:
        raise LoadFailed(f"{path}: {result.answers}")
    return result


def write_transactions(database_url: str) -> int:
    """Count the server's write transactions so far; PostgreSQL numbers only those."""
    with psycopg.connect(database_url) as connection:
        row = connection.execute("SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint").fetchone()
    if row is None:
        raise LookupError("a query without a table has one row")
    return int(row[0])
