from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from bench.parts import statements
from devstack.postgres import Postgres
from tests.database import empty_database, server


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("postgres")


@pytest.fixture(scope="module")
def postgres(directory: Path) -> Iterator[Postgres]:
    with server(directory) as running:
        yield running


def test_statements_about_a_workspace_are_reported_with_their_sender(
    postgres: Postgres, directory: Path
) -> None:
    url = empty_database(postgres, "statements")
    with psycopg.connect(url, autocommit=True, application_name="onebox-test") as connection:
        connection.execute("CREATE TABLE t (name text)")
        connection.execute("INSERT INTO t VALUES (%s)", ["ws-1"])
        with statements.logged(url, directory / "postgres.log") as logged:
            for _ in range(3):
                connection.execute("INSERT INTO t VALUES (%s)", ["ws-1"])
            connection.execute("INSERT INTO t VALUES (%s)", ["ws-10"])
            connection.execute("SELECT name FROM t WHERE name = %s", ["ws-1"])
        connection.execute("INSERT INTO t VALUES (%s)", ["ws-1"])
    sent = logged.about("ws-1")
    assert [sender for sender, _ in sent] == ["onebox-test"] * 4
    assert [statements.writes(statement) for _, statement in sent] == [True, True, True, False]
    assert sum(statements.repeated(sent).values()) == 2


def test_a_statement_with_other_parameters_is_no_repetition() -> None:
    sent = [
        ("a", "INSERT INTO t VALUES ($1)\nparameters: $1 = 'x'"),
        ("a", "INSERT INTO t VALUES ($1)\nparameters: $1 = 'y'"),
    ]
    assert statements.repeated(sent).total() == 0


def test_a_statement_in_a_table_is_one_short_line() -> None:
    shown = statements.short("SELECT a\n   FROM b || c " + "x" * 200)
    assert "\n" not in shown
    assert "|" not in shown
    assert len(shown) <= statements.SHOWN + 3
