"""Keeps one server running: restarts it after an unexpected end."""

import threading
import time
from collections.abc import Callable
from typing import Protocol

from devstack.processes import ChildFailed

WATCH_SECONDS = 0.05

FIRST_PAUSE_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 10.0
STEADY_SECONDS = 30.0
"""A server that ran this long did not fail at its start."""


class Server(Protocol):
    """A server in a process."""

    @property
    def pid(self) -> int:
        """The process ID."""

    @property
    def running(self) -> bool:
        """Whether the process runs."""

    def ready(self) -> bool:
        """Whether it is ready."""

    def start(self) -> None:
        """Start it and wait until it is ready. Raises `ChildFailed`."""

    def stop(self) -> None:
        """Stop it in order and wait for its end."""

    def kill(self) -> None:
        """SIGKILL it and wait for its end."""


class Supervised:
    """A server and a thread that restarts it after an unexpected end."""

    def __init__(
        self, name: str, server: Server, *, changed: Callable[[], None], report: Callable[[str], None]
    ) -> None:
        """`changed` is called after each start and end; `report` receives lines for the user."""
        self.name = name
        self._server = server
        self._changed = changed
        self._report = report
        self._lock = threading.Lock()
        self._wanted = False
        self._closing = threading.Event()
        self._watcher: threading.Thread | None = None

    @property
    def pid(self) -> int | None:
        """The process ID, while it runs."""
        return self._server.pid if self._server.running else None

    def ready(self) -> bool:
        """Whether it runs and is ready."""
        return self._server.running and self._server.ready()

    def start(self) -> None:
        """Start it, wait until it is ready, and keep it running from now on. Raises `ChildFailed`."""
        with self._lock:
            if self._closing.is_set():
                raise ChildFailed(f"{self.name} is not started: the stack is being stopped")
            self._wanted = True
            self._server.start()
            if self._watcher is None:
                self._watcher = threading.Thread(target=self._watch, name=f"watch {self.name}", daemon=True)
                self._watcher.start()
        self._changed()

    def stop(self) -> None:
        """Stop it; it stays down until it is started."""
        self._end(self._server.stop)

    def kill(self) -> None:
        """SIGKILL it; it stays down until it is started."""
        self._end(self._server.kill)

    def close(self, *, kill: bool) -> None:
        """End it permanently."""
        self._closing.set()
        self._end(self._server.kill if kill else self._server.stop)
        if self._watcher is not None:
            self._watcher.join()

    def _end(self, end: Callable[[], None]) -> None:
        self._wanted = False
        end()  # without the lock, to interrupt a start in progress
        with self._lock:
            end()  # leftovers of that start
        self._changed()

    def _watch(self) -> None:
        next_pause = FIRST_PAUSE_SECONDS
        started = time.monotonic()
        while not self._closing.wait(WATCH_SECONDS):
            with self._lock:  # a start in progress is not an end
                ended = self._wanted and not self._server.running
            if not ended:
                continue
            steady = time.monotonic() - started > STEADY_SECONDS
            pause = FIRST_PAUSE_SECONDS if steady else next_pause
            self._report(f"{self.name} ended unexpectedly; it is started again in {pause:g} s")
            self._changed()
            if self._closing.wait(pause):
                return
            next_pause = min(2 * pause, LONGEST_PAUSE_SECONDS)
            started = time.monotonic()
            self._revive()

    def _revive(self) -> None:
        with self._lock:
            if not self._wanted:
                return
            try:
                self._server.start()
            except ChildFailed as error:
                if self._wanted:  # otherwise it was ended on purpose during its start
                    self._report(str(error))
                return
        self._report(f"{self.name} is back, process {self._server.pid}")
        self._changed()
