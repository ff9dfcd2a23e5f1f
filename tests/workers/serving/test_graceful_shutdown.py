"""Processes that are told to end: the API drains, the codec server and a migration end in order."""

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

import httpx
import psycopg
import pytest

from devstack.postgres import Postgres
from devstack.processes import LOCALHOST, POLL_SECONDS, Child, accepts_connections, free_port
from store.db.migrate import migrations
from tests.database import empty_database, migrated_database, patiently_migrate, server

SECONDS = 120.0
HELD_UP_SECONDS = 2.5
"""What is under way is given up after five seconds (by the codec server) or ten; a database, after three."""

TIMES = 3

FOR_EVER = "300"
"""No test waits for it: a second signal cuts it short."""

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


def told_to_end(process: Child) -> None:
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
    """A register API as a process, and what callers see of it."""

    def __init__(self, child: Child, port: int) -> None:
        self.child = child
        self.port = port

    def probe(self, path: str) -> httpx.Response:
        """On a new connection."""
        return httpx.get(f"http://{LOCALHOST}:{self.port}{path}", trust_env=False, timeout=SECONDS)

    def connection(self) -> socket.socket:
        return socket.create_connection((LOCALHOST, self.port), timeout=SECONDS)

    @property
    def ready(self) -> bool:
        return accepts_connections(self.port) and self.probe("/readyz").status_code == 200

    @property
    def draining(self) -> bool:
        """Whether it says so; not ready it may also be because its database is slow."""
        answer = self.probe("/readyz")
        return answer.status_code == 503 and "shutting down" in answer.text

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
    """A call whose body is on its way."""
    connection = api.connection()
    begin(connection, HEAD, BODY)
    return connection


def begin(connection: socket.socket, head: bytes, body: bytes) -> None:
    """Send the head and, as soon as the body is waited for, the first of it.

    What is not taken up yet when its server ends is not under way: the server says when it is.
    """
    connection.sendall(head)
    assert read(connection, to=b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
    connection.sendall(body[:5])


def finished(connection: socket.socket) -> bytes:
    """Its answer, to the end of the connection."""
    connection.sendall(BODY[5:])
    return read(connection)


def read(connection: socket.socket, *, to: bytes = b"\0") -> bytes:
    """What comes until the connection ends, or what came ends so."""
    received = b""
    while not received.endswith(to) and (data := connection.recv(65536)):
        received += data
    return received


class HeldUp(Exception):
    """It failed, and took longer than a server has to wait for it."""


@contextmanager
def under_way() -> Iterator[None]:
    """Something goes on that a server does not wait for very long: `HeldUp` if it failed late."""
    began = time.monotonic()
    try:
        yield
    except (AssertionError, OSError) as error:
        if time.monotonic() - began > HELD_UP_SECONDS:
            raise HeldUp from error
        raise


def unless_held_up(attempt: Callable[[], None]) -> None:
    """Try anew, with another process, where the machine was too slow to tell."""
    for left in reversed(range(TIMES)):
        try:
            attempt()
        except HeldUp:
            if not left:
                raise
        else:
            return


def test_an_api_that_drains_is_not_ready_first_and_serves_all_the_same(database: str, tmp_path: Path) -> None:
    settings = {"SHUTDOWN_DELAY_SECONDS": FOR_EVER, "KEEP_ALIVE_SECONDS": FOR_EVER}

    def drains_and_serves(running: Api) -> None:
        kept = httpx.Client(base_url=f"http://{LOCALHOST}:{running.port}", trust_env=False, timeout=SECONDS)
        with kept, begun(running) as connection:
            assert "connection" not in kept.get("/healthz").headers
            told_to_end(running.child)
            until(lambda: running.draining)

            answer = running.probe("/readyz")
            assert (answer.status_code, answer.json()["code"]) == (503, "not_ready")
            assert "shutting down" in answer.json()["error"]
            # Whoever has a connection is answered on it, and asked to take another one.
            answer = kept.get("/healthz")
            assert (answer.status_code, answer.headers["connection"]) == (200, "close")
            served = finished(connection)
            assert served.startswith(b"HTTP/1.1 404 ")
            assert b"connection: close" in served

    def attempt() -> None:
        with api(database, tmp_path, **settings) as running:
            with under_way():
                drains_and_serves(running)
            assert running.child.running
            told_to_end(running.child)
            assert ended(running.child) == 0, running.child.tail()

    unless_held_up(attempt)


def test_an_api_that_has_drained_finishes_what_is_under_way_and_ends_with_0(
    database: str, tmp_path: Path
) -> None:
    def attempt() -> None:
        with api(database, tmp_path, SHUTDOWN_DELAY_SECONDS="0.2") as running:
            with under_way(), begun(running) as connection:
                told_to_end(running.child)
                until(lambda: running.gone)
                served = finished(connection)
                assert served.startswith(b"HTTP/1.1 404 ")
                assert served.endswith(b"}")
            assert ended(running.child) == 0, running.child.tail()

    unless_held_up(attempt)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_without_a_delay_it_ends_at_once_and_with_0(
    database: str, tmp_path: Path, number: signal.Signals
) -> None:
    with api(database, tmp_path) as running:
        os.kill(running.child.pid, number)
        assert ended(running.child) == 0, running.child.tail()


def test_an_idle_connection_is_kept_for_as_long_as_the_setting_says(database: str, tmp_path: Path) -> None:
    with (
        api(database, tmp_path / "long", KEEP_ALIVE_SECONDS="600") as long,
        api(database, tmp_path / "short", KEEP_ALIVE_SECONDS="1") as short,
        long.connection() as first,
        short.connection() as second,
    ):
        for connection in (first, second):
            connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
            assert read(connection, to=b"}").startswith(b"HTTP/1.1 200 ")
        # By default both would be closed by now, the first one first.
        assert read(second) == b""
        assert select.select([first], [], [], 0)[0] == []


def test_the_codec_server_finishes_what_is_under_way_and_ends_with_0(tmp_path: Path) -> None:
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
        with under_way(), socket.create_connection((LOCALHOST, port), timeout=SECONDS) as connection:
            begin(connection, head, body)
            told_to_end(child)
            until(lambda: not accepts_connections(port))
            connection.sendall(body[5:])
            assert read(connection).startswith(b"HTTP/1.1 200 ")
        assert ended(child) == 0, child.tail()
    assert "codec.stopped" in child.log_text()


def schema(database: str) -> set[tuple[object, ...]]:
    """What a migration can have made."""
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
async def test_a_migration_that_is_interrupted_has_applied_nothing_and_can_be_run_again(
    postgres: Postgres, tmp_path: Path
) -> None:
    database = empty_database(postgres, "interrupted")
    *earlier, last = migrations()
    await patiently_migrate(database, earlier)
    before = schema(database)
    with nothing_noted(database), process("migrate", tmp_path, {"DATABASE_URL": database}) as child:
        until(lambda: waits_for_a_lock(postgres, "interrupted"))
        told_to_end(child)
        assert ended(child) == 128 + signal.SIGTERM, child.tail()
        assert "interrupted" in child.log_text()
    assert schema(database) == before
    with process("migrate", tmp_path, {"DATABASE_URL": database}) as child:
        assert ended(child) == 0, child.tail()
    assert child.log_text() == f"applied {last.name}\n"
    assert len(schema(database)) > len(before)


@contextmanager
def nothing_noted(database: str) -> Iterator[None]:
    """Who migrates in the block does all but the line that says so; that waits for the block's end."""
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
