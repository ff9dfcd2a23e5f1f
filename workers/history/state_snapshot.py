"""The state of a workspace after one workflow task of a replay."""

from dataclasses import dataclass
from datetime import datetime

from workflows.workspace.state import State, Step


@dataclass(frozen=True, slots=True, kw_only=True)
class StateSnapshot:
    """All that the workflow remembered once it had worked through an event."""

    run: int
    event: int
    at: datetime
    """What the workflow's clock said."""
    state: State
    running: Step | None
