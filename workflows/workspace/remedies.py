"""What an operator can do about a workspace now, as commands to copy. Standard library only."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from workflows.workspace import conditions
from workflows.workspace.enums import ConditionStatus, ConditionType, Intent, Phase
from workflows.workspace.state import Condition, State

OPERATOR = "admin:YOU"
"""The `requested_by` in the commands. It must start with `admin`; operators replace YOU with their name."""

INSTANCE_PLACEHOLDER = "INSTANCE"
"""Where the instance ID is not known: the operator finds the instance by its tags."""

_DEFERS = ("BudgetExhausted", "SameFailure", "FleetFrozen", "FleetAtCapacity", "Backoff")


@dataclass(frozen=True, slots=True, kw_only=True)
class Remedy:
    """A purpose, and the command for it."""

    to: str
    command: str


def remedies(state: State, at: datetime) -> tuple[Remedy, ...]:
    """What an operator can do, the likeliest first; empty if the workspace is healthy or deleted."""
    return tuple(_remedies(state, at))


def _remedies(state: State, at: datetime) -> Iterator[Remedy]:
    workspace, generation = state.workspace_id, state.generation
    if not state.enrolled:
        return
    if state.is_fence_unconfirmed(at):
        for instance in _unconfirmed(state):
            which = (
                "the instance with this workspace's tags" if instance == INSTANCE_PLACEHOLDER else instance
            )
            yield Remedy(
                to=f"confirm that {which} is terminated (nothing is launched until you do)",
                command=_update(workspace, "declare_dead", instance_id=instance, requested_by=OPERATOR),
            )
    match conditions.phase(state):
        case Phase.STOPPED:
            yield Remedy(
                to="give it a box again", command=_update(workspace, "request_start", requested_by=OPERATOR)
            )
        case Phase.FAILED:
            yield Remedy(
                to="after fixing the cause, retry (this also resets the backoff)",
                command=_update(workspace, "request_start", requested_by=OPERATOR),
            )
        case Phase.DEGRADED:
            deferred = _deferred_by(state)
            force = {"force": True} if deferred is not None else {}
            yield Remedy(
                to="replace the box"
                + (f" although recreates are deferred ({deferred.reason})" if deferred else ""),
                command=_update(
                    workspace,
                    "request_recreate",
                    requested_by=OPERATOR,
                    observed_generation=generation,
                    **force,
                ),
            )
        case Phase.AWAITING_REGISTRATION:
            yield Remedy(
                to="give up this box before its deadline, and launch another",
                command=_update(
                    workspace,
                    "request_recreate",
                    requested_by=OPERATOR,
                    observed_generation=generation,
                    force=True,
                ),
            )
        case Phase.PROVISIONING | Phase.RECREATING if state.refused:
            yield Remedy(
                to="after correcting the spec or the settings, give up this generation and open another",
                command=_update(
                    workspace,
                    "request_recreate",
                    requested_by=OPERATOR,
                    observed_generation=generation,
                    force=True,
                ),
            )
        case _:
            return


def _unconfirmed(state: State) -> tuple[str, ...]:
    """The instances whose termination is not confirmed; a placeholder where the instance is not known."""
    keys = [it.key for it in state.fence.unconfirmed_instances]
    known = [key for key in keys if key.startswith("i-")]
    unknown = [INSTANCE_PLACEHOLDER] if len(known) < len(keys) or not keys else []
    return (*known, *unknown)


def _deferred_by(state: State) -> Condition | None:
    for condition in state.conditions:
        if condition.type is ConditionType.RECREATE_ALLOWED and condition.status is not ConditionStatus.TRUE:
            return condition if condition.reason in _DEFERS and state.intent is Intent.RUN else None
    return None


def _update(workspace: str, name: str, **payload: object) -> str:
    # One option per line: the UI shows this in half a page and does not wrap.
    return (
        f"temporal workflow update execute \\\n    --workflow-id {workspace} --name {name} \\\n"
        f"    --input '{json.dumps(payload)}'"
    )
