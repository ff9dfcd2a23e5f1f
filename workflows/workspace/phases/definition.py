"""What defines a step, and a deadline."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from workflows.shared.activity_options import ActivityOptions
from workflows.shared.step_result import StepResult
from workflows.workspace.enums import Step
from workflows.workspace.messages import WorkspaceSpec
from workflows.workspace.state import State


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class StepDefinition:
    """All that is known about one step of the lifecycle. Compared by identity."""

    step: Step
    doing: str
    """What the step does, as `status` and the UI show it while the step runs."""
    due: Callable[[State], bool]
    """Whether the step is due, if no earlier step of the plan is."""
    activity: Callable[..., Any]
    """The activity's contract."""
    request: Callable[[State, WorkspaceSpec, datetime], Any]
    """The activity's request."""
    options: ActivityOptions
    result: type[StepResult]
    """Type of the activity's result, which is applied as an event; created if the activity returns None."""
    apply: Callable[[State, Any, datetime], State]
    """The state after the result."""
    failed: Callable[[State, Any, datetime], State] | None = None
    """The state after a failure; None: record it and retry."""
    halts: bool = False
    """Whether an error that cannot be retried halts the workspace. Other steps are retried slowly."""
    provisions: bool = False
    """Whether the step brings the box online: its span belongs to the trace of the generation."""
    interruptible: bool = False
    """Whether the activity is cancelled when another step becomes due."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Deadline:
    """An instant at which time alone changes the state."""

    at: Callable[[State], datetime | None]
    """When it passes; None if it does not apply to the state."""
    passed: Callable[[State, datetime], State]
    """The state after it has passed."""
