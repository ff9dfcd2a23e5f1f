"""The SQL statements sent to PostgreSQL about a workspace during a block, from PostgreSQL's log."""

import re
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psycopg

from devstack.console import TIMEOUT_SECONDS
from devstack.processes import POLL_SECONDS, ChildFailed

SETTINGS = {"log_statement": "all", "log_line_prefix": "%m [%p] app=%a ", "log_duration": "off"}

SHOWN = 90
"""Length of a statement in a table."""

_ENTRY = re.compile(r"^\d{4}-\d\d-\d\d [^\[]+\[(\d+)\] app=(\S*) (\w+):  ", re.MULTILINE)
_STATEMENT = re.compile(r"(?:execute [^:]*|statement): (.*)", re.DOTALL)


@dataclass(slots=True)
class Statements:
    """The logged statements; filled when the block ends."""

    sent: list[tuple[str, str]] = field(default_factory=list)
    """The sender, and the statement with its parameters."""

    def about(self, word: str) -> list[tuple[str, str]]:
        """Return those whose text or parameters contain the word."""
        return [each for each in self.sent if re.search(rf"\b{re.escape(word)}(?![\w-])", each[1])]


def repeated(sent: list[tuple[str, str]]) -> Counter[str]:
    """Return statements that were repeated identically, with the number of repetitions."""
    counts = Counter(statement for _, statement in sent)
    return Counter({statement: number - 1 for statement, number in counts.items() if number > 1})


def writes(statement: str) -> bool:
    """Whether it writes; locks do not count."""
    return statement.lstrip().startswith(("INSERT", "UPDATE", "DELETE"))


def short(statement: str) -> str:
    """Return its beginning on one line."""
    text = " ".join(statement.split()).replace("|", "")
    return f"`{text[:SHOWN]}…`"


@contextmanager
def logged(database_url: str, log: Path) -> Iterator[Statements]:
    """Log all statements for the block."""
    statements = Statements()
    began = log.stat().st_size
    _tell(database_url, {name: f"'{value}'" for name, value in SETTINGS.items()})
    try:
        yield statements
    finally:
        _tell(database_url, dict.fromkeys(SETTINGS, "DEFAULT"))
    with log.open("rb") as file:
        file.seek(began)
        statements.sent = list(_read(file.read().decode(errors="replace")))


def _tell(database_url: str, settings: dict[str, str]) -> None:
    """Change server settings and wait until sessions use them."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        for name, value in settings.items():
            connection.execute(f"ALTER SYSTEM SET {name} = {value}".encode())
        connection.execute("SELECT pg_reload_conf()")
    # Sessions apply the settings at their next statement; a new one shows that the server has loaded them.
    _eventually(database_url, "log_statement", "all" if "'all'" in settings.values() else "none")


def _eventually(database_url: str, name: str, value: str) -> None:
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while True:
        with psycopg.connect(database_url) as connection:
            row = connection.execute("SELECT current_setting(%s)", [name]).fetchone()
        if row is not None and row[0] == value:
            return
        if time.monotonic() > deadline:
            raise ChildFailed(f"postgres has {name} = {row}, not {value}")
        time.sleep(POLL_SECONDS)


def _read(text: str) -> Iterator[tuple[str, str]]:
    """Return statements with their parameters, which follow as separate log entries."""
    marks = list(_ENTRY.finditer(text))
    pending: tuple[str, str, str] | None = None
    for mark, end in zip(marks, [*(each.start() for each in marks[1:]), len(text)], strict=True):
        process, sender, level = mark.groups()
        said = text[mark.end() : end].strip()
        if level == "DETAIL" and pending is not None and pending[0] == process:
            yield pending[1], f"{pending[2]}\n{said}"
            pending = None
            continue
        if pending is not None:
            yield pending[1:]
        found = _STATEMENT.match(said) if level == "LOG" else None
        pending = (process, sender, found[1]) if found else None
    if pending is not None:
        yield pending[1:]
