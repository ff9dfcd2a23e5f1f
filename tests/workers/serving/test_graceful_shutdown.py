"""Graceful shutdown: the API drains; the codec server and a migration end in order."""

import hashlib
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import httpx2
import psycopg
import pytest

from devstack.postgres import Postgres
from devstack.processes import LOCALHOST, POLL_SECONDS, Child, accepts_connections, free_port
from store.db.migrate import migrations
from tests.database import empty_database, migrated_database, patiently_migrate, server

SECONDS = 120.0
HELD_UP_SECONDS = 2.5
"""A server drops running requests after five (codec server) or ten seconds, a database connection after
three."""

TIMES = 3

FOR_EVER = "300"
"""No test waits for it: a second signal ends it."""

BODY = b'{"workspace_id": "ws-1"}'
HEAD = (
    f"POST /registry/heartbeat HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    f"Content-Length: {len(BODY)}\r\nExpect: 100-continue\r\n\r\n"
).encode()


@pytest.fixture(scope="module")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    with server(tmp_path_factory.mktemp("postgres")) as running:
        yield running


@pytest.fixture(scope="module")
def database(postgres: Postgres) -> str:
    return migrated_database(postgres, "ending")


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(POLL_SECONDS)


def terminate(process: Child) -> None:
    os.kill(process.pid, signal.SIGTERM)


def ended(process: Child) -> int | None:
    assert process.wait(seconds=SECONDS), "it does not end"
    return process.exit_code


@contextmanager
def process(name: str, directory: Path, environment: Mapping[str, str]) -> Iterator[Child]:
    child = Child(
        name,
        [sys.executable, "-m", "cli", name],
        log=directory / f"{name}.log",
        environment={"PATH": os.environ["PATH"], **environment},
    )
    child.start()
    try:
        yield child
    finally:
        child.kill()


class Api:
    """A register API process, as its callers see it."""

    def __init__(self, child: Child, port: int) -> None:
        self.child = child
        self.port = port

    def probe(self, path: str) -> httpx2.Response:
        """Call an endpoint on a new connection."""
        return httpx2.get(f"http://{LOCALHOST}:{self.port}{path}", trust_env=False, timeout=SECONDS)

    def connection(self) -> socket.socket:
        return socket.create_connection((LOCALHOST, self.port), timeout=SECONDS)

    @property
    def ready(self) -> bool:
        return accepts_connections(self.port) and self.probe("/readyz").status_code == 200

    @property
    def draining(self) -> bool:
        """Whether it reports shutdown; a slow database also makes it not ready."""
        response = self.probe("/readyz")
        return response.status_code == 503 and "shutting down" in response.text

    @property
    def gone(self) -> bool:
        return not accepts_connections(self.port)


@contextmanager
def api(database: str, directory: Path, **settings: str) -> Iterator[Api]:
    port = free_port()
    environment = {
        "DATABASE_URL": database,
        "SERVER_KEYS": f"k1:{'ab' * 32}",
        "REGISTER_API_BIND": f"{LOCALHOST}:{port}",
        **settings,
    }
    with process("api", directory, environment) as child:
        running = Api(child, port)
        child.wait_ready(lambda: running.ready, seconds=SECONDS)
        yield running


def begun(api: Api) -> socket.socket:
    """A connection with a request whose body is incomplete."""
    connection = api.connection()
    begin(connection, HEAD, BODY)
    return connection


def begin(connection: socket.socket, head: bytes, body: bytes) -> None:
    """Send the head and, once the server waits for the body, the first bytes of the body.

    A shutdown does not wait for a request that the server has not started yet.
    """
    connection.sendall(head)
    assert read(connection, to=b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
    connection.sendall(body[:5])


def finished(connection: socket.socket) -> bytes:
    """Send the rest of the body; return the response up to the end of the connection."""
    connection.sendall(BODY[5:])
    return read(connection)


def read(connection: socket.socket, *, to: bytes = b"\0") -> bytes:
    """The bytes until the connection ends or `to` is received."""
    received = b""
    while not received.endswith(to) and (data := connection.recv(65536)):
        received += data
    return received


class HeldUp(Exception):
    """A check failed after longer than a server waits for a request."""


@contextmanager
def in_progress() -> Iterator[None]:
    """Raise `HeldUp` if the block fails after longer than a server waits."""
    began = time.monotonic()
    try:
        yield
    except (AssertionError, OSError) as error:
        if time.monotonic() - began > HELD_UP_SECONDS:
            raise HeldUp from error
        raise


def unless_held_up(attempt: Callable[[], None]) -> None:
    """Retry with another process if the machine was too slow."""
    for left in reversed(range(TIMES)):
        try:
            attempt()
        except HeldUp:
            if not left:
                raise
        else:
            return


def test_a_draining_api_is_not_ready_and_still_serves(database: str, tmp_path: Path) -> None:
    settings = {"SHUTDOWN_DELAY_SECONDS": FOR_EVER, "KEEP_ALIVE_SECONDS": FOR_EVER}

    def drains_and_serves(running: Api) -> None:
        kept = httpx2.Client(base_url=f"http://{LOCALHOST}:{running.port}", trust_env=False, timeout=SECONDS)
        with kept, begun(running) as connection:
            assert "connection" not in kept.get("/healthz").headers
            terminate(running.child)
            until(lambda: running.draining)

            answer = running.probe("/readyz")
            assert (answer.status_code, answer.json()["code"]) == (503, "not_ready")
            assert "shutting down" in answer.json()["error"]
            # An open connection gets its response and is then closed.
            answer = kept.get("/healthz")
            assert (answer.status_code, answer.headers["connection"]) == (200, "close")
            served = finished(connection)
            assert served.startswith(b"HTTP/1.1 401 ")
            assert b"connection: close" in served

    def attempt() -> None:
        with api(database, tmp_path, **settings) as running:
            with in_progress():
                drains_and_serves(running)
            assert running.child.running
            terminate(running.child)
            assert ended(running.child) == 0, running.child.tail()

    unless_held_up(attempt)


def test_a_drained_api_finishes_running_requests_and_exits_with_0(database: str, tmp_path: Path) -> None:
    def attempt() -> None:
        with api(database, tmp_path, SHUTDOWN_DELAY_SECONDS="0.2") as running:
            with in_progress(), begun(running) as connection:
                terminate(running.child)
                until(lambda: running.gone)
                served = finished(connection)
                assert served.startswith(b"HTTP/1.1 401 ")
                assert served.endswith(b"}")
            assert ended(running.child) == 0, running.child.tail()

    unless_held_up(attempt)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_without_a_delay_it_exits_at_once_with_0(
    database: str, tmp_path: Path, number: signal.Signals
) -> None:
    with api(database, tmp_path) as running:
        os.kill(running.child.pid, number)
        assert ended(running.child) == 0, running.child.tail()


def test_an_idle_connection_is_kept_as_configured(database: str, tmp_path: Path) -> None:
    with (
        api(database, tmp_path / "long", KEEP_ALIVE_SECONDS="600") as long,
        api(database, tmp_path / "short", KEEP_ALIVE_SECONDS="1") as short,
        long.connection() as first,
        short.connection() as second,
    ):
        for connection in (first, second):
            connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
            assert read(connection, to=b"}").startswith(b"HTTP/1.1 200 ")
        # With the default both would be closed by now.
        assert read(second) == b""
        assert select.select([first], [], [], 0)[0] == []


def test_the_codec_server_finishes_running_requests_and_exits_with_0(tmp_path: Path) -> None:
    unless_held_up(partial(_codec_server_finishes, tmp_path))


def _codec_server_finishes(directory: Path) -> None:
    port = free_port()
    environment = {
        "PAYLOAD_KEYS": f"k1:{'1a' * 32}",
        "CODEC_TOKEN_HASHES": hashlib.sha256(b"token").hexdigest(),
        "CODEC_BIND": f"{LOCALHOST}:{port}",
    }
    body = b'{"payloads": []}'
    head = (
        "POST /decode HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer token\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\nExpect: 100-continue\r\n\r\n"
    ).encode()
    with process("codec", directory, environment) as child:
        child.wait_ready(lambda: accepts_connections(port), seconds=SECONDS)
        with in_progress(), socket.create_connection((LOCALHOST, port), timeout=SECONDS) as connection:
            begin(connection, head, body)
            terminate(child)
            until(lambda: not accepts_connections(port))
            connection.sendall(body[5:])
            assert read(connection).startswith(b"HTTP/1.1 200 ")
        assert ended(child) == 0, child.tail()
    assert "codec.stopped" in child.log_text()


def schema(database: str) -> set[tuple[object, ...]]:
    """Everything that a migration can create."""
    with psycopg.connect(database, autocommit=True) as conn:
        return set(
            conn.execute(
                "SELECT table_name, column_name FROM information_schema.columns"
                " WHERE table_schema = 'public'"
                " UNION ALL SELECT tablename, indexname FROM pg_indexes WHERE schemaname = 'public'"
                " UNION ALL SELECT 'applied', name FROM schema_migrations"
            )
        )


@pytest.mark.anyio
async def test_an_interrupted_migration_is_rolled_back_and_can_run_again(
    postgres: Postgres, tmp_path: Path
) -> None:
    database = empty_database(postgres, "interrupted")
    *earlier, last = migrations()
    await patiently_migrate(database, earlier)
    before = schema(database)
    with records_locked(database), process("migrate", tmp_path, {"DATABASE_URL": database}) as child:
        until(lambda: waits_for_a_lock(postgres, "interrupted"))
        terminate(child)
        assert ended(child) == 128 + signal.SIGTERM, child.tail()
        assert "interrupted" in child.log_text()
    assert schema(database) == before
    with process("migrate", tmp_path, {"DATABASE_URL": database}) as child:
        assert ended(child) == 0, child.tail()
    assert child.log_text() == f"applied {last.name}\n"
    assert len(schema(database)) > len(before)


@contextmanager
def records_locked(database: str) -> Iterator[None]:
    """Block the insert that records a migration until the block ends."""
    with psycopg.connect(database) as conn:
        conn.execute("LOCK TABLE schema_migrations IN SHARE MODE")
        yield


def waits_for_a_lock(postgres: Postgres, database: str) -> bool:
    with psycopg.connect(postgres.url, autocommit=True) as conn:
        [found] = conn.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = %s AND wait_event_type = 'Lock'"
            " AND application_name = 'onebox-migrate' AND query LIKE 'INSERT INTO schema_migrations%%'",
            [database],
        )
        return found == (1,)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"
