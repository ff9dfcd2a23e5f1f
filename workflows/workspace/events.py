"""The inputs of the lifecycle: results of steps, failures, events of boxes, time. Standard library only.

Events may arrive in any order. The rules in `lifecycle` and `phases` decide what follows from them.
"""

from dataclasses import dataclass
from datetime import datetime

from workflows.shared.step_result import StepResult
from workflows.workspace.enums import BoxEventKind, Step
from workflows.workspace.state import FleetFreeze


@dataclass(frozen=True, slots=True)
class Tick:
    """Time has passed."""


@dataclass(frozen=True, slots=True)
class Closed(StepResult):
    """PostgreSQL has the intent to stop or delete."""


@dataclass(frozen=True, slots=True)
class AddressRemoved(StepResult):
    """The DNS name is removed."""


@dataclass(frozen=True, slots=True)
class VolumeDeleted(StepResult):
    """The data volume of a deleted workspace is deleted, or never existed."""


@dataclass(frozen=True, slots=True)
class StateBehindRecord:
    """PostgreSQL has a newer generation than this workflow knows, as after a reset to an older point."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepFailed:
    """A step failed, after the retries that its activity options allow."""

    step: Step
    code: str
    message: str
    hint: str
    retryable: bool
    refused: bool = False
    """AWS rejected the call without effect. It passes once its cause is gone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BoxChanged:
    """An event of a box, as PostgreSQL recorded it."""

    kind: BoxEventKind
    generation: int
    at: datetime
    detail: str = ""
    """What was observed, in words."""


Event = Tick | StepResult | StepFailed | StateBehindRecord | BoxChanged | FleetFreeze
