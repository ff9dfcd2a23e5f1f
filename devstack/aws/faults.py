"""The injected faults, and the matching of requests to them. The layer applies the effects."""

import itertools
import threading
from collections.abc import Iterable
from dataclasses import dataclass, field

from devstack.aws.values import Fault, FaultStatus


@dataclass(slots=True)
class ArmedFault:
    """An injected fault and the number of requests that it affected."""

    id: str
    fault: Fault
    used: int = 0
    holding: int = 0
    released: threading.Event = field(default_factory=threading.Event)

    def matches(self, action: str, workspaces: Iterable[str]) -> bool:
        """Whether a request with this action and these workspaces matches the fault."""
        fault = self.fault
        return (
            fault.action in (action, "*")
            and (fault.times is None or self.used < fault.times)
            and (fault.workspace is None or fault.workspace in workspaces)
        )


class Faults:
    """The faults of an endpoint. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._armed: dict[str, ArmedFault] = {}
        self._numbers = itertools.count(1)

    def inject(self, fault: Fault) -> str:
        """Inject a fault and return its ID."""
        with self._lock:
            armed = ArmedFault(f"fault-{next(self._numbers)}", fault)
            self._armed[armed.id] = armed
            return armed.id

    def match(self, action: str, workspaces: Iterable[str]) -> list[ArmedFault]:
        """Return the faults that match a request, in the order of their injection, and count the request."""
        names = set(workspaces)
        with self._lock:
            met = [armed for armed in self._armed.values() if armed.matches(action, names)]
            for armed in met:
                armed.used += 1
            return met

    def hold(self, armed: ArmedFault) -> None:
        """Wait until the fault is released or cleared."""
        with self._lock:
            armed.holding += 1
        armed.released.wait()
        with self._lock:
            armed.holding -= 1

    def release(self, fault_id: str) -> bool:
        """Release the responses that a fault holds, and clear it. Returns False for an unknown fault."""
        with self._lock:
            armed = self._armed.pop(fault_id, None)
        if armed is None:
            return False
        armed.released.set()
        return True

    def clear(self) -> None:
        """Clear all faults, and release the responses that they hold."""
        for status in self.statuses():
            self.release(status.id)

    def statuses(self) -> list[FaultStatus]:
        """Return all faults and their effects."""
        with self._lock:
            return [
                FaultStatus(id=armed.id, fault=armed.fault, used=armed.used, holding=armed.holding)
                for armed in self._armed.values()
            ]
