"""What people and searches see of a workspace: status, search attributes, words of the UI.

Says what the state is; decides nothing.
"""

from datetime import datetime
from typing import Any

from temporalio.common import SearchAttributeUpdate

from workflows import conditions, lifecycle, messages, recovery
from workflows.facts import Watched
from workflows.messages import WorkspaceStatus
from workflows.state import Intent, State, Step

_DOING = {
    Step.ENROLL: "reading its record",
    Step.OPEN: "opening the generation and revoking the old tokens",
    Step.CLOSE: "revoking the tokens",
    Step.FENCE: "terminating the boxes before, and confirming it",
    Step.LAUNCH: "launching the instance",
    Step.ADDRESS: "waiting for the instance to run, then writing the DNS name",
    Step.CANARY: "asking the agent a question",
    Step.REMOVE_ADDRESS: "removing the DNS name",
    Step.INQUIRE: "reading what the box did, since its deadline has passed",
    Step.CONSULT: "asking whether the fleet allows an automatic recreate",
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
        recreates=recovery.recreates(state.recovery, at),
        last_error=state.last_error,
        conditions=state.conditions,
        waiting_for=waiting_for(state, running),
    )


def search_attributes(state: State) -> list[SearchAttributeUpdate[Any]]:
    """What lists and saved views of the UI can ask for."""
    error, gone = state.last_error, state.intent is not Intent.RUN and state.fence.confirmed
    return [
        messages.PHASE.value_set(conditions.phase(state)),
        messages.GENERATION.value_set(state.generation),
        messages.INSTANCE.value_set(state.box.instance_id)
        if state.box.instance_id and not gone
        else messages.INSTANCE.value_unset(),
        messages.ERROR_CODE.value_set(error.code) if error else messages.ERROR_CODE.value_unset(),
    ]


def summary(step: Step, generation: int) -> str:
    """What an activity does, for the UI's event list."""
    return f"generation {generation}: {_DOING[step]}"


def waiting_for(state: State, running: Step | None) -> str:
    """What the workflow does or waits for now, in one sentence."""
    if running is not None:
        return _DOING[running]
    if state.retry is not None:
        return f"{_DOING[state.retry.step]}: again at {_time(state.retry.not_before)}"
    if state.intent is not Intent.RUN:
        return f"nothing: {conditions.phase(state)}"
    if state.flight is not None:
        return f"the box to register and beat, until {_time(lifecycle.wake_at(state))}"
    if state.ask_again_at is not None:
        return f"the next automatic recreate, at {_time(state.ask_again_at)}"
    if state.halted or state.recovery.exhausted:
        return "a human: request_start takes it up again"
    return "requests, and news of its box"


def details(state: State, running: Step | None) -> str:
    """The current details in Markdown: what the workspace is, does, waits for, and why."""
    box = state.box
    lines = [
        f"**{conditions.phase(state)}** — generation {state.generation}, "
        f"instance {box.instance_id or 'none'}, {box.private_ip or 'no address'}"
        + (f", data volume {box.volume_id or 'not attached'}" if state.has_volume else ""),
        "",
        f"Now: {waiting_for(state, running)}.",
    ]
    if error := state.last_error:
        lines += [
            "",
            f"Last error in *{error.phase}* (generation {error.generation}, {error.count}×, "
            f"last at {_time(error.last_at)}): `{error.code}` — {error.message}",
            "",
            f"What to do: {error.hint}",
        ]
    lines += ["", "| condition | status | why |", "|---|---|---|"]
    lines += [f"| {it.type} | {it.status} | {it.message} |" for it in state.conditions]
    if state.requests:
        lines += ["", "| request at | by | outcome | detail |", "|---|---|---|---|"]
        lines += [
            f"| {_time(it.at)} | {it.requested_by or 'unnamed'} ({it.kind}) | {it.outcome} | {it.detail} |"
            for it in state.requests[-10:]
        ]
    return "\n".join(lines)


def watched(seen: Watched) -> str:
    """What the watchdog saw, in Markdown."""
    lines = [
        f"**{'frozen' if seen.frozen else 'watching'}** — "
        f"{seen.stale} of {seen.running} workspaces are stale; "
        f"{seen.recreating} of at most {seen.concurrent} automatic recreates are under way.",
    ]
    if seen.frozen:
        lines += ["", f"Nothing automatic begins: {seen.frozen}. Requests of humans pass."]
    if seen.asked:
        lines += ["", f"Asked for another box of: {', '.join(seen.asked)}; {seen.waiting} more wait."]
    return "\n".join(lines)


def _time(at: datetime | None) -> str:
    return f"{at:%Y-%m-%d %H:%M:%S} UTC" if at else "never"
