"""What a human can do about a workspace now, as commands to copy. Standard library only.

Advises; whether a request is accepted is decided in `admission`.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from workflows.workspace import conditions
from workflows.workspace.phases.fencing import is_unconfirmed
from workflows.workspace.state import Condition, ConditionStatus, ConditionType, Intent, Phase, State

WHO = "admin:YOU"
"""A name that starts with `admin` is a human's; the rest is for whoever reads the record later."""

UNKNOWN = "INSTANCE"
"""Where no look at EC2 has succeeded yet, only a human knows which it is."""

_HELD_BACK = ("BudgetSpent", "FailedAlike", "FleetFrozen", "FleetBusy", "Spacing")


@dataclass(frozen=True, slots=True, kw_only=True)
class Remedy:
    """A purpose, and the command that serves it."""

    to: str
    command: str


def remedies(state: State, at: datetime) -> tuple[Remedy, ...]:
    """What can be done, the likeliest first; nothing where all is well or over."""
    return tuple(_advice(state, at))


def _advice(state: State, at: datetime) -> Iterator[Remedy]:
    workspace, generation = state.workspace_id, state.generation
    if not state.enrolled:
        return
    if is_unconfirmed(state.fence, at, after=state.timings.fence_unconfirmed):
        for instance in [instance.key for instance in state.fence.unconfirmed_instances] or [UNKNOWN]:
            yield Remedy(
                to=f"vouch that {instance} is gone, once you have seen it: nothing is launched before",
                command=_update(workspace, "declare_dead", instance_id=instance, requested_by=WHO),
            )
    match conditions.phase(state):
        case Phase.STOPPED:
            yield Remedy(
                to="give it a box again", command=_update(workspace, "request_start", requested_by=WHO)
            )
        case Phase.FAILED:
            yield Remedy(
                to="try again, with a budget that begins anew, once the cause is gone",
                command=_update(workspace, "request_start", requested_by=WHO),
            )
        case Phase.DEGRADED:
            held = _held_back(state)
            force = {"force": True} if held is not None else {}
            yield Remedy(
                to="replace the box" + (f" although it is held back ({held.reason})" if held else ""),
                command=_update(
                    workspace, "request_recreate", requested_by=WHO, observed_generation=generation, **force
                ),
            )
        case Phase.AWAITING_REGISTRATION:
            yield Remedy(
                to="give this box up before its deadline, and launch another",
                command=_update(
                    workspace,
                    "request_recreate",
                    requested_by=WHO,
                    observed_generation=generation,
                    force=True,
                ),
            )
        case _:
            return


def _held_back(state: State) -> Condition | None:
    for condition in state.conditions:
        if condition.type is ConditionType.RECREATE_ALLOWED and condition.status is not ConditionStatus.TRUE:
            return condition if condition.reason in _HELD_BACK and state.intent is Intent.RUN else None
    return None


def _update(workspace: str, name: str, **payload: object) -> str:
    # In lines of their own: the UI shows this in half a page, and breaks none.
    return (
        f"temporal workflow update execute \\\n    --workflow-id {workspace} --name {name} \\\n"
        f"    --input '{json.dumps(payload)}'"
    )
