"""Starting, awaiting, stopping and killing child processes.

Knows nothing of what they are: the servers have modules of their own.
"""

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
"""How much of a log an error shows: about a screen."""

STOP_SECONDS = 15.0
"""How long a child may take to stop before it is killed."""

POLL_SECONDS = 0.02

FREE_PORTS = range(15_000, 32_000)
"""Below the ephemeral range, so that no outgoing connection takes one meanwhile."""

READY_SECONDS = 90.0
"""An idle machine needs 2 s; one that is busy with everything else at once was seen to need more than 30."""

_PARENT_DEATH = Path(__file__).with_name("parent_death.py")

_SPAWNER = ThreadPoolExecutor(max_workers=1, thread_name_prefix="spawner")
"""The kernel's parent-death signal follows the *thread* that forked, not the process: all children are
forked by one thread that lives as long as the process does."""


class ChildFailed(RuntimeError):
    """A child process ended early, or wasn't ready in time; the text shows the end of its log."""


class PortInUse(RuntimeError):
    """A port that a server was to listen on is taken; the text names it."""


class Child:
    """One child process, its log file, and its descendants."""

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
        """`prefix` is a program that changes the credentials and then becomes `arguments`.

        `death_signal` is what the kernel sends when this process is gone, however it went.
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
        """The process ID. Raises `ChildFailed` if it was never started."""
        if self._process is None:
            raise ChildFailed(f"{self.name} was not started")
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether it was started and has not ended."""
        return self._process is not None and self._process.poll() is None

    @property
    def exit_code(self) -> int | None:
        """Its exit code, negative for a signal; None while it runs or before it was started."""
        return self._process.poll() if self._process is not None else None

    def start(self) -> None:
        """Start it in a session of its own: Ctrl-C in the terminal reaches only us."""
        if self.running:
            return
        self.log.parent.mkdir(parents=True, exist_ok=True)
        # A change of credentials clears the parent-death signal, so the helper comes after the prefix.
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
        """Poll until `ready`. Raises `ChildFailed` if it ends first, or isn't ready in time."""
        deadline = time.monotonic() + seconds
        while not ready():
            if not self.running:
                raise ChildFailed(f"{self.name} ended with exit code {self.exit_code}:\n{self.tail()}")
            if time.monotonic() > deadline:
                raise ChildFailed(f"{self.name} was not ready after {seconds:g} s:\n{self.tail()}")
            time.sleep(POLL_SECONDS)

    def wait(self, *, seconds: float) -> bool:
        """Wait for its end; False if it still runs after that time."""
        if self._process is None:
            return True
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        return True

    def stop(self) -> None:
        """Ask it to stop, wait for its end, and kill what is left of it and its descendants."""
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
        self._process.kill()  # first, so that it can't restart what is killed next
        _kill(family)
        self._reap()

    def log_text(self) -> str:
        """What it has logged since its last start."""
        with self.log.open("rb") as log:
            log.seek(self._log_start)
            return log.read().decode(errors="replace")

    def tail(self) -> str:
        """The end of what it has logged since its last start."""
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
    """A child that is started together with the wait until it is of use."""

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
        """`ready` is asked until it says yes; `stop_seconds` is how long it may take to stop."""
        super().__init__(name, arguments, log=log, environment=environment, stop_seconds=stop_seconds)
        self._ready = ready
        self._ready_seconds = ready_seconds

    @override
    def start(self) -> None:
        """Start it, and wait until it is ready. Raises `ChildFailed`."""
        super().start()
        self.wait_ready(self.ready, seconds=self._ready_seconds)

    def ready(self) -> bool:
        """Whether it can be used."""
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
        # A zombie holds nothing any more; when it is reaped is up to whoever inherited it.
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def port_is_free(port: int, *, host: str = LOCALHOST) -> bool:
    """Whether a server could listen on that port now."""
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
        except OSError:
            return False
        return True


class _Reservations:
    """The ports that this process was given: none is given again, to it or to another one, while it lives.

    A port is free until its server listens, which takes seconds, and again whenever that is restarted: of two
    processes that look at the same time both would find it so. The kernel lets the locks go with the process.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._mine: set[int] = set()
        self._file: int | None = None

    def take(self, port: int) -> bool:
        """Reserve it; False if this process or another one has it."""
        with self._lock:
            if port in self._mine:
                return False  # the kernel would let the same process lock it again
            if self._file is None:
                path = Path(tempfile.gettempdir()) / f"onebox-ports-{os.geteuid()}"
                self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
            try:
                # One byte for each port, of a file that stays empty.
                fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, port)
            except (BlockingIOError, PermissionError):  # POSIX leaves it open which of the two
                return False
            self._mine.add(port)
            return True


_RESERVATIONS = _Reservations()


def free_port() -> int:
    """A free port that nobody else is given as long as this process lives."""
    for _ in range(1000):
        port = secrets.choice(FREE_PORTS)  # not `random`, which tests may have seeded alike
        if _RESERVATIONS.take(port) and port_is_free(port):
            return port
    raise PortInUse(f"no free port between {FREE_PORTS.start} and {FREE_PORTS.stop - 1}")


def accepts_connections(port: int, *, host: str = LOCALHOST) -> bool:
    """Whether something listens there."""
    with socket.socket() as client:
        client.settimeout(1.0)
        return client.connect_ex((host, port)) == 0
