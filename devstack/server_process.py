"""A server that is one process, created at its first start and restarted after its end."""

from abc import ABC, abstractmethod
from types import TracebackType
from typing import Self

from devstack.processes import Child, ChildFailed


class ChildServer(ABC):
    """Base class. Subclasses define the command and the readiness check. The data outlives the process."""

    def __init__(self) -> None:
        self._made: Child | None = None

    @abstractmethod
    def start(self) -> None:
        """Start it and wait until it is ready."""

    @abstractmethod
    def _make(self) -> Child:
        """Create the process without starting it."""

    @property
    def pid(self) -> int:
        """The process ID. Raises `ChildFailed` if the process was never started."""
        if self._made is None:
            raise ChildFailed(f"{type(self).__name__} was not started")
        return self._made.pid

    @property
    def running(self) -> bool:
        """Whether the process runs."""
        return self._made is not None and self._made.running

    def stop(self) -> None:
        """Stop it in order and wait for its end."""
        if self._made is not None:
            self._made.stop()

    def kill(self) -> None:
        """SIGKILL it and all its descendants."""
        if self._made is not None:
            self._made.kill()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _child(self) -> Child:
        if self._made is None:
            self._made = self._make()
        return self._made
