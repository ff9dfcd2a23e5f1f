"""The devstack's PostgreSQL keeps its data through any end of its processes."""

import os
import signal
import stat
from collections.abc import Iterator
from pathlib import Path

import psutil
import psycopg
import pytest

from devstack.postgres import Postgres
from devstack.processes import accepts_connections, free_port


@pytest.fixture(scope="module")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    with Postgres(tmp_path_factory.mktemp("postgres"), port=free_port(), fsync=False) as server:
        yield server


def alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:  # reaped between the two checks
        return False


def test_it_keeps_its_data_over_a_stop_and_over_sigkill(postgres: Postgres) -> None:
    with psycopg.connect(postgres.url) as connection:
        connection.execute("CREATE TABLE kept (what text)")
        connection.execute("INSERT INTO kept VALUES ('before the stop')")
    postgres.stop()
    postgres.start()
    with psycopg.connect(postgres.url) as connection:
        connection.execute("INSERT INTO kept VALUES ('before SIGKILL')")
    postgres.kill()
    postgres.start()
    with psycopg.connect(postgres.url) as connection:
        assert connection.execute("SELECT count(*) FROM kept").fetchone() == (2,)


def test_it_starts_again_at_once_after_a_sigkill_of_the_postmaster_alone(postgres: Postgres) -> None:
    with psycopg.connect(postgres.url):  # a backend that notices late
        os.kill(postgres.pid, signal.SIGKILL)
        postgres.start()
    with psycopg.connect(postgres.url) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)


def test_killing_it_leaves_no_process_behind(postgres: Postgres) -> None:
    family = [psutil.Process(postgres.pid), *psutil.Process(postgres.pid).children(recursive=True)]
    assert len(family) > 1
    postgres.kill()
    assert not [process for process in family if alive(process)]
    assert not accepts_connections(postgres.port)
    postgres.start()


def test_it_rejects_connections_without_the_password(postgres: Postgres) -> None:
    with pytest.raises(psycopg.OperationalError, match="password"):
        psycopg.connect(f"postgresql://onebox:wrong@127.0.0.1:{postgres.port}/onebox")


def test_the_password_is_its_owners_secret(tmp_path: Path) -> None:
    with Postgres(tmp_path, port=free_port(), fsync=False):
        assert stat.S_IMODE((tmp_path / "password").stat().st_mode) == 0o600
