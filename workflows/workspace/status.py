"""What people and searches see of a workspace: status, search attributes, words of the UI.

Says what the state is; decides nothing.
"""

from datetime import datetime
from typing import Any

from temporalio.common import SearchAttributeUpdate

from workflows.shared.markdown import code, plain, table
from workflows.workspace import backoff, conditions, deadlines, lifecycle, messages, remedies
from workflows.workspace.events import WatchdogReport
from workflows.workspace.messages import WorkspaceStatus
from workflows.workspace.requests import Request
from workflows.workspace.state import ConditionStatus, Intent, LastError, State, Step

SHOWN_REQUESTS = 10
"""In the current details, which are read at a glance; the query `requests` has more."""

_EMPHASIS = {
    ConditionStatus.TRUE: "true",
    ConditionStatus.FALSE: "**false**",
    ConditionStatus.UNKNOWN: "**unknown**",
}

_STEP_DESCRIPTIONS = {
    Step.ENROLL: "reading its record",
    Step.OPEN: "opening the generation and revoking the old tokens",
    Step.CLOSE: "revoking the tokens",
    Step.FENCE: "terminating the boxes before, and confirming it",
    Step.LAUNCH: "launching the instance",
    Step.ADDRESS: "waiting for the instance to run, then writing the DNS name",
    Step.CANARY: "asking the agent a question",
    Step.REMOVE_ADDRESS: "removing the DNS name",
    Step.CHECK_REGISTRATION: "reading what the box did, since its deadline has passed",
    Step.FLEET_PERMIT: "asking whether the fleet allows an automatic recreate",
    Step.EVICT: "terminating boxes that are not this generation's",
    Step.DETACH: "seeing that the data volume is free",
    Step.SNAPSHOT: "asking for a snapshot of the data volume",
    Step.ATTACH: "waiting for the instance to run, then attaching the data volume",
    Step.DELETE_VOLUME: "deleting the data volume",
}


def status(state: State, running: Step | None, at: datetime) -> WorkspaceStatus:
    """The answer of the `status` query."""
    gone = state.intent is not Intent.RUN and state.fence.confirmed
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
    """What lists and saved views of the UI can ask for; the reason last."""
    error, trouble = state.last_error, conditions.blocking_condition(state)
    gone = state.intent is not Intent.RUN and state.fence.confirmed
    return [
        messages.PHASE.value_set(conditions.phase(state)),
        messages.GENERATION.value_set(state.generation),
        messages.INSTANCE.value_set(state.box.instance_id)
        if state.box.instance_id and not gone
        else messages.INSTANCE.value_unset(),
        messages.ERROR_CODE.value_set(error.code) if error else messages.ERROR_CODE.value_unset(),
        messages.REASON.value_set(trouble.reason) if trouble else messages.REASON.value_unset(),
    ]


def memo(state: State) -> dict[str, str | None]:
    """What a list tells beside the search attributes, in words; None where there is nothing to tell."""
    error, trouble = state.last_error, conditions.blocking_condition(state)
    return {
        "dns_name": state.box.dns_name,
        "why": trouble.message if trouble else None,
        "last_error": f"{error.code}: {error.message}" if error else None,
    }


def summary(step: Step, generation: int) -> str:
    """What an activity does, for the UI's event list."""
    return f"generation {generation}: {_STEP_DESCRIPTIONS[step]}"


def waiting_for(state: State, running: Step | None) -> str:
    """What the workflow does or waits for now, in one sentence."""
    if running is not None:
        return _STEP_DESCRIPTIONS[running]
    if state.retry is not None:
        return f"{_STEP_DESCRIPTIONS[state.retry.step]}: again at {_time(state.retry.not_before)}"
    if state.intent is not Intent.RUN:
        return f"nothing: {conditions.phase(state)}"
    if state.provisioning is not None:
        return f"the box to register and beat, until {_time(lifecycle.wake_at(state))}"
    if state.retry_recreate_at is not None:
        return f"the next automatic recreate, at {_time(state.retry_recreate_at)}"
    if state.halted or state.budget.exhausted:
        return "a human: request_start takes it up again"
    if (replaced_at := deadlines.processing_deadline(state)) is not None:
        return f"the agent to process again; another box is asked for at {_time(replaced_at)}"
    if conditions.blocking_condition(state) is not None:
        return "its box to be well again, or a request; the watchdog asks for another box by and by"
    return "requests, and news of its box"


def details(state: State, running: Step | None, at: datetime) -> str:
    """The current details in Markdown: what the workspace is, does, waits for, why; what one can do."""
    lines = [_what_it_is(state), "", f"**Now:** {plain(waiting_for(state, running))}."]
    if trouble := conditions.blocking_condition(state):
        since = _time(trouble.last_transition_at)
        lines += ["", f"**Why:** {plain(trouble.message)} ({code(trouble.reason)}, since {since})."]
    if error := state.last_error:
        lines += [
            "",
            f"**Last error:** {code(error.code)} in *{error.phase}* of generation {error.generation}: "
            f"{plain(error.message)}",
            "",
            f"{_times(error)}. {plain(error.hint)}",
        ]
    if advice := remedies.remedies(state, at):
        lines += ["", "**What you can do:**"]
        for one in advice:
            lines += ["", f"- {plain(one.to)}:", "", "```", one.command, "```"]
    # The UI shows this in half a page, without space between columns: few of them, and short ones.
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


def _what_it_is(state: State) -> str:
    box, gone = state.box, state.intent is not Intent.RUN and state.fence.confirmed
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


def _times(error: LastError) -> str:
    again = "tried again by itself" if error.retryable else "not tried again by itself"
    if error.count == 1:
        return f"Once, at {_time(error.last_at)}; {again}"
    return f"{error.count} times from {_time(error.first_at)} to {_time(error.last_at)}; {again}"


def watchdog_details(seen: WatchdogReport) -> str:
    """What the watchdog saw, in Markdown."""
    lines = [
        f"**{'frozen' if seen.frozen else 'watching'}** — "
        f"{seen.stale} of {seen.running} workspaces are stale; "
        f"{seen.recreating} of at most {seen.max_concurrent} automatic recreates are under way.",
    ]
    if seen.frozen:
        lines += ["", f"Nothing automatic begins: {plain(seen.frozen)}. Requests of humans pass."]
    if seen.requested:
        lines += ["", f"Asked for another box of: {', '.join(seen.requested)}; {seen.waiting} more wait."]
    return "\n".join(lines)


def _time(at: datetime | None) -> str:
    return f"{at:%Y-%m-%d %H:%M:%S} UTC" if at else "never"


def _short(at: datetime) -> str:
    return f"{at:%m-%d %H:%M:%S}"
