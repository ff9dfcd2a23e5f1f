"""A server that is one process: made when it is first started, and started again after its end."""

from abc import ABC, abstractmethod
from types import TracebackType
from typing import Self

from devstack.processes import Child, ChildFailed


class ChildServer(ABC):
    """What it is and when it is ready is its subclass's; its data outlives it."""

    def __init__(self) -> None:
        self._made: Child | None = None

    @abstractmethod
    def start(self) -> None:
        """Start it, and wait until it can be used."""

    @abstractmethod
    def _make(self) -> Child:
        """The process, which is not started yet."""

    @property
    def pid(self) -> int:
        """The process's ID; `ChildFailed` if it was never started."""
        if self._made is None:
            raise ChildFailed(f"{type(self).__name__} was not started")
        return self._made.pid

    @property
    def running(self) -> bool:
        """Whether the process runs."""
        return self._made is not None and self._made.running

    def stop(self) -> None:
        """Have it end in an orderly way, and wait for that."""
        if self._made is not None:
            self._made.stop()

    def kill(self) -> None:
        """SIGKILL it, with all the processes that it began."""
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
