"""What operators see of a workspace: status, search attributes, memo, current details."""

from datetime import datetime
from typing import Any, assert_never

from temporalio.common import SearchAttributeUpdate

from workflows.shared import names
from workflows.shared.markdown import code, plain, table
from workflows.workspace import backoff, conditions
from workflows.workspace.enums import ConditionStatus, Intent, Step
from workflows.workspace.messages import WorkspaceStatus
from workflows.workspace.phases import plan
from workflows.workspace.phases.canary import unresponsive_deadline
from workflows.workspace.phases.definition import StepDefinition
from workflows.workspace.phases.registration import register_deadline
from workflows.workspace.remedies import remedies
from workflows.workspace.requests import Request
from workflows.workspace.state import (
    BackingOff,
    Exhausted,
    Halted,
    LastError,
    Provisioning,
    Settled,
    State,
)

SHOWN_REQUESTS = 10
"""In the current details. The query `requests` returns more."""

_EMPHASIS = {
    ConditionStatus.TRUE: "true",
    ConditionStatus.FALSE: "**false**",
    ConditionStatus.UNKNOWN: "**unknown**",
}


def status(state: State, running: StepDefinition | None, at: datetime) -> WorkspaceStatus:
    """The result of the `status` query."""
    gone = _is_gone(state)
    return WorkspaceStatus(
        workspace_id=state.workspace_id,
        phase=conditions.phase(state),
        generation=state.generation,
        instance_id=None if gone else state.box.instance_id,
        private_ip=None if gone else state.box.private_ip,
        dns_name=state.box.dns_name,
        volume_id=None if gone else state.box.volume_id,
        recreates=backoff.recreates_last_day(state.budget, at),
        last_error=state.last_error,
        conditions=state.conditions,
        waiting_for=waiting_for(state, running),
    )


def search_attributes(state: State) -> list[SearchAttributeUpdate[Any]]:
    """The search attributes of lists and saved views."""
    error, blocking = state.last_error, conditions.blocking_condition(state)
    has_instance = state.box.instance_id is not None and not _is_gone(state)
    return [
        names.PHASE.value_set(conditions.phase(state)),
        names.GENERATION.value_set(state.generation),
        names.INSTANCE.value_set(state.box.instance_id or "")
        if has_instance
        else names.INSTANCE.value_unset(),
        names.ERROR_CODE.value_set(error.code) if error else names.ERROR_CODE.value_unset(),
        names.REASON.value_set(blocking.reason) if blocking else names.REASON.value_unset(),
    ]


def memo(state: State) -> dict[str, str | None]:
    """The memo: texts in addition to the search attributes. None removes an entry."""
    error, blocking = state.last_error, conditions.blocking_condition(state)
    return {
        "dns_name": state.box.dns_name,
        "why": blocking.message if blocking else None,
        "last_error": f"{error.code}: {error.message}" if error else None,
    }


def waiting_for(state: State, running: StepDefinition | None) -> str:
    """What the workflow does or waits for now, as a clause that completes "Now:"."""
    if running is not None:
        return running.doing
    if state.retry is not None:
        return f"{_doing(state.retry.step)}; next attempt at {_time(state.retry.not_before)}"
    if state.intent is not Intent.RUN:
        return f"nothing to do: the workspace is {conditions.phase(state)}"
    match state.waiting:
        case Provisioning() | Settled():
            return _waiting_for_box(state)
        case BackingOff(until=until):
            return f"waiting for the next automatic recreate at {_time(until)}"
        case Halted() | Exhausted():
            return "waiting for an operator: run request_start to retry"
        case _ as never:
            assert_never(never)


def _waiting_for_box(state: State) -> str:
    if (replaced_at := unresponsive_deadline(state)) is not None:
        return f"waiting for the agent to recover; its box is replaced at {_time(replaced_at)}"
    if state.provisioning is not None:
        deadline = register_deadline(state)
        until = f", until {_time(deadline)}" if deadline is not None else ""
        return f"waiting for the box to register and send heartbeats{until}"
    if conditions.blocking_condition(state) is not None:
        return "waiting for the box to recover; the watchdog requests a recreate if it does not"
    return "idle: healthy, waiting for requests and events of the box"


def _doing(step: Step) -> str:
    return plan.BY_STEP[step].doing


def _is_gone(state: State) -> bool:
    return state.intent is not Intent.RUN and state.fence.confirmed


def details(state: State, running: StepDefinition | None, at: datetime) -> str:
    """The current details in Markdown: state, what happens next, why, and what an operator can do."""
    lines = [_summary(state), "", f"**Now:** {plain(waiting_for(state, running))}."]
    if blocking := conditions.blocking_condition(state):
        since = _time(blocking.last_transition_at)
        lines += ["", f"**Why:** {plain(blocking.message)} ({code(blocking.reason)}, since {since})."]
    if error := state.last_error:
        lines += [
            "",
            f"**Last error:** {code(error.code)} in *{error.phase}* of generation {error.generation}: "
            f"{plain(error.message)}",
            "",
            f"{_occurrences(error)}. {plain(error.hint)}",
        ]
    if available := remedies(state, at):
        lines += ["", "**What you can do:**"]
        for remedy in available:
            lines += ["", f"- {plain(remedy.to)}:", "", "```", remedy.command, "```"]
    # The UI shows this in half a page, without space between columns: few columns, and short ones.
    lines += table(
        ("condition", "status", "since (UTC)", "why"),
        (
            (code(it.type), _EMPHASIS[it.status], code(_short(it.last_transition_at)), plain(it.message))
            for it in state.conditions
        ),
    )
    lines += table(
        ("at (UTC)", "last requests", "outcome"),
        (
            (code(_short(it.at)), _requested(it), f"**{it.outcome}**: {plain(it.detail)}")
            for it in reversed(state.requests[-SHOWN_REQUESTS:])
        ),
    )
    return "\n".join(lines)


def _summary(state: State) -> str:
    box, gone = state.box, _is_gone(state)
    parts = [f"generation {state.generation}"]
    parts.append(f"instance {code(box.instance_id)}" if box.instance_id and not gone else "no instance")
    if box.private_ip and not gone:
        parts.append(f"address {box.private_ip}")
    if box.dns_name and not state.address_removed:
        parts.append(code(box.dns_name))
    if state.has_volume:
        parts.append(f"data volume {code(box.volume_id) if box.volume_id and not gone else 'not attached'}")
    return f"**{conditions.phase(state)}** — {', '.join(parts)}"


def _requested(request: Request) -> str:
    about = f" about generation {request.observed_generation}" if request.observed_generation else ""
    force = ", with force" if request.force else ""
    why = f": {plain(request.reason, 120)}" if request.reason else ""
    return f"{request.kind} by {plain(request.requested_by or 'unnamed', 80)}{about}{force}{why}"


def _occurrences(error: LastError) -> str:
    again = "Onebox retries" if error.retryable else "Onebox does not retry"
    if error.count == 1:
        return f"Once, at {_time(error.last_at)}; {again}"
    return f"{error.count} times from {_time(error.first_at)} to {_time(error.last_at)}; {again}"


def _time(at: datetime | None) -> str:
    return f"{at:%Y-%m-%d %H:%M:%S} UTC" if at else "never"


def _short(at: datetime) -> str:
    return f"{at:%m-%d %H:%M:%S}"
