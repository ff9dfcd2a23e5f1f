"""The state of a workspace after one workflow task of a replay.

The only module of `cli` and `workers` that reads the workflow's state.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from pydantic import JsonValue, TypeAdapter

from workflows.workspace import conditions, status
from workflows.workspace.enums import Phase
from workflows.workspace.phases.definition import StepDefinition
from workflows.workspace.requests import Request
from workflows.workspace.state import Condition, LastError, State

_STATE = TypeAdapter(State)


@dataclass(frozen=True, slots=True, kw_only=True)
class StateSnapshot:
    """The state that the workflow held after it processed an event."""

    run: int
    event: int
    at: datetime
    """The workflow's clock."""
    state: State
    running: StepDefinition | None

    @property
    def phase(self) -> Phase:
        """The workspace's phase."""
        return conditions.phase(self.state)

    @property
    def generation(self) -> int:
        """The current generation."""
        return self.state.generation

    @property
    def conditions(self) -> tuple[Condition, ...]:
        """The workspace's conditions."""
        return self.state.conditions

    @property
    def last_error(self) -> LastError | None:
        """The newest error that persists."""
        return self.state.last_error

    @property
    def requests(self) -> tuple[Request, ...]:
        """The decided requests that the state still holds."""
        return self.state.requests

    def describe(self) -> Iterator[tuple[str, str]]:
        """The main parts of the state as pairs of name and text."""
        state = self.state
        yield "now", status.waiting_for(state, self.running)
        yield "instance", f"{state.box.instance_id or 'none'}, {state.box.private_ip or 'no address'}"
        if (open_ := state.provisioning) is not None:
            requesters = ", ".join(name or "an unnamed requester" for name in open_.requesters) or "nobody"
            since = f"{open_.since:%H:%M:%S.%f}"[:-3]
            yield "in progress", f"generation {open_.generation} since {since}, requested by {requesters}"
        for error in state.errors:
            yield "error", f"{error.code} in {error.phase}, {error.count}×: {error.message}"
        for it in state.conditions:
            yield str(it.type), f"{it.status}: {it.message}"

    def as_json(self) -> JsonValue:
        """The whole state."""
        plain: JsonValue = _STATE.dump_python(self.state, mode="json")
        return plain
