"""Starting, awaiting, stopping and killing child processes."""

import contextlib
import fcntl
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
from typing_extensions import override

LOCALHOST = "127.0.0.1"

TAIL_BYTES = 4_000
"""Length of the log excerpt in an error: about a screen."""

STOP_SECONDS = 15.0
"""How long a child may take to stop before it is killed."""

POLL_SECONDS = 0.02

FREE_PORTS = range(15_000, 32_000)
"""Below the ephemeral range, so that no outgoing connection takes a port."""

READY_SECONDS = 90.0
"""An idle machine needs 2 s; a busy one needed more than 30 s."""

_PARENT_DEATH = Path(__file__).with_name("parent_death.py")

_SPAWNER = ThreadPoolExecutor(max_workers=1, thread_name_prefix="spawner")
"""The kernel's parent-death signal follows the *thread* that forked, not the process. One thread that
lives as long as the process forks all children."""


class ChildFailed(RuntimeError):
    """A child process ended early or was not ready in time. The text shows the end of its log."""


class PortInUse(RuntimeError):
    """A server's port is in use. The text names the port."""


class Child:
    """One child process, its log file and its descendants."""

    def __init__(
        self,
        name: str,
        arguments: Sequence[str],
        *,
        log: Path,
        environment: Mapping[str, str] | None = None,
        directory: Path | None = None,
        prefix: Sequence[str] = (),
        stop_signal: signal.Signals = signal.SIGTERM,
        death_signal: signal.Signals = signal.SIGKILL,
        stop_seconds: float = STOP_SECONDS,
    ) -> None:
        """`prefix` is a program that changes the credentials and then execs `arguments`.

        The kernel sends `death_signal` when this process has exited, for whatever reason.
        """
        self.name = name
        self.log = log
        self._arguments = tuple(arguments)
        self._environment = dict(environment) if environment is not None else None
        self._directory = directory
        self._prefix = tuple(prefix)
        self._stop_signal = stop_signal
        self._death_signal = death_signal
        self._stop_seconds = stop_seconds
        self._process: subprocess.Popen[bytes] | None = None
        self._log_start = 0

    @property
    def pid(self) -> int:
        """The process ID. Raises `ChildFailed` if the child was never started."""
        if self._process is None:
            raise ChildFailed(f"{self.name} was not started")
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether it was started and has not ended."""
        return self._process is not None and self._process.poll() is None

    @property
    def exit_code(self) -> int | None:
        """The exit code, negative for a signal; None while it runs or before its start."""
        return self._process.poll() if self._process is not None else None

    def start(self) -> None:
        """Start it in its own session, so that Ctrl-C in the terminal reaches this process only."""
        if self.running:
            return
        self.log.parent.mkdir(parents=True, exist_ok=True)
        # A change of credentials clears the parent-death signal, so the helper runs after the prefix.
        parent_death = (
            sys.executable,
            "-I",
            "-S",
            str(_PARENT_DEATH),
            str(int(self._death_signal)),
            str(os.getpid()),
        )
        with self.log.open("ab") as log:
            self._log_start = log.tell()
            self._process = _SPAWNER.submit(
                subprocess.Popen,
                [*self._prefix, *parent_death, *self._arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self._environment,
                cwd=self._directory,
                start_new_session=True,
            ).result()

    def wait_ready(self, ready: Callable[[], bool], *, seconds: float) -> None:
        """Poll until `ready`. Raises `ChildFailed` if the child ends first or is not ready in time."""
        deadline = time.monotonic() + seconds
        while not ready():
            if not self.running:
                raise ChildFailed(f"{self.name} ended with exit code {self.exit_code}:\n{self.tail()}")
            if time.monotonic() > deadline:
                raise ChildFailed(f"{self.name} was not ready after {seconds:g} s:\n{self.tail()}")
            time.sleep(POLL_SECONDS)

    def wait(self, *, seconds: float) -> bool:
        """Wait for its end. Returns False if it still runs after that time."""
        if self._process is None:
            return True
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        return True

    def stop(self) -> None:
        """Terminate it, wait, and kill what remains of it and its descendants."""
        if self._process is None:
            return
        if self.running:
            family = self._family()
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(self._stop_signal)
            self.wait(seconds=self._stop_seconds)
            _kill(family)
        self._reap()

    def kill(self) -> None:
        """SIGKILL it and all its descendants, and wait for their end."""
        if self._process is None:
            return
        family = self._family() if self.running else []
        self._process.kill()  # the parent first, so that it cannot restart its descendants
        _kill(family)
        self._reap()

    def log_text(self) -> str:
        """Return its log since the last start."""
        with self.log.open("rb") as log:
            log.seek(self._log_start)
            return log.read().decode(errors="replace")

    def tail(self) -> str:
        """Return the end of its log since the last start."""
        return self.log_text()[-TAIL_BYTES:].strip() or "(it logged nothing)"

    def _family(self) -> list[psutil.Process]:
        try:
            return psutil.Process(self.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []

    def _reap(self) -> None:
        assert self._process is not None  # noqa: S101
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)  # orphans that stayed in its group
        self._process.wait()


class Program(Child):
    """A child with a readiness check."""

    def __init__(
        self,
        name: str,
        arguments: Sequence[str],
        *,
        log: Path,
        environment: Mapping[str, str],
        ready: Callable[["Program"], bool],
        ready_seconds: float = READY_SECONDS,
        stop_seconds: float = STOP_SECONDS,
    ) -> None:
        """`ready` is polled until it returns True. `stop_seconds` limits the graceful stop."""
        super().__init__(name, arguments, log=log, environment=environment, stop_seconds=stop_seconds)
        self._ready = ready
        self._ready_seconds = ready_seconds

    @override
    def start(self) -> None:
        """Start it and wait until it is ready. Raises `ChildFailed`."""
        super().start()
        self.wait_ready(self.ready, seconds=self._ready_seconds)

    def ready(self) -> bool:
        """Whether it is ready."""
        return self.running and self._ready(self)


def _kill(processes: list[psutil.Process]) -> None:
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    deadline = time.monotonic() + STOP_SECONDS
    while any(map(_alive, processes)) and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS / 4)


def _alive(process: psutil.Process) -> bool:
    try:
        # A zombie holds no resources; whoever inherited it reaps it.
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def port_is_free(port: int, *, host: str = LOCALHOST) -> bool:
    """Whether a server can listen on the port now."""
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
        except OSError:
            return False
        return True


class _Reservations:
    """The ports reserved by this process. While it lives, no process gets one of them again.

    A port looks free until its server listens, which takes seconds, and during each restart. Without
    reservations, two processes could choose the same port. The kernel releases the locks with the process.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._mine: set[int] = set()
        self._file: int | None = None

    def take(self, port: int) -> bool:
        """Reserve the port. Returns False if this process or another one holds it."""
        with self._lock:
            if port in self._mine:
                return False  # the kernel would let the same process lock it again
            if self._file is None:
                path = Path(tempfile.gettempdir()) / f"onebox-ports-{os.geteuid()}"
                self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
            try:
                # One byte per port, in a file that stays empty.
                fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, port)
            except (BlockingIOError, PermissionError):  # POSIX allows either error
                return False
            self._mine.add(port)
            return True


_RESERVATIONS = _Reservations()


def free_port() -> int:
    """Return a free port and reserve it for the lifetime of this process."""
    for _ in range(1000):
        port = secrets.choice(FREE_PORTS)  # not `random`, which tests may have seeded alike
        if _RESERVATIONS.take(port) and port_is_free(port):
            return port
    raise PortInUse(f"no free port between {FREE_PORTS.start} and {FREE_PORTS.stop - 1}")


def accepts_connections(port: int, *, host: str = LOCALHOST) -> bool:
    """Whether a server listens on the port."""
    with socket.socket() as client:
        client.settimeout(1.0)
        return client.connect_ex((host, port)) == 0
