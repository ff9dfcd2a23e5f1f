"""Delegated work on the whole stack: delivery is not processing, and an unresponsive agent is detected."""

import json
from functools import partial
from pathlib import Path
from uuid import uuid4

import pytest
from temporalio.service import RPCError

from devstack.console import JSON, Console, eventually
from devstack.stack import Stack
from tests.integration.test_registering import box_of, token_file
from tests.integration.wire import Wire
from workflows.delegation.messages import workflow_id_of
from workflows.workspace.enums import CanaryPolicy, Phase
from workflows.workspace.messages import WorkspaceSpec

pytestmark = pytest.mark.anyio


async def online(console: Console, *workspaces: str, canary: CanaryPolicy = CanaryPolicy.OFF) -> None:
    for workspace in workspaces:
        await console.start(workspace, WorkspaceSpec(canary=canary))
    for workspace in workspaces:
        await console.until_phase(workspace, Phase.ONLINE)
        await eventually(partial(console.record, workspace), lambda it: bool(it["url"]))


async def delegate(console: Console, source: str, target: str, **body: object) -> str:
    """Delegate work; the key makes a repeated call return the same delegation."""
    key = f"of-a-test-{uuid4()}"
    answer = await console.call(
        "POST",
        f"/workspaces/{source}/delegate",
        {"target_id": target, "task": "do it", "idempotency_key": key, **body},
    )
    assert answer.status_code == 202, answer.text
    return str(answer.json()["delegation_id"])


async def listed(console: Console, source: str) -> dict[str, JSON]:
    answer = await console.call("GET", f"/workspaces/{source}/delegations")
    return {one["id"]: one for one in answer.json()}


async def until_state(console: Console, source: str, delegation_id: str, state: str) -> JSON:
    async def look() -> JSON:
        return (await listed(console, source))[delegation_id]

    return await eventually(look, lambda it: it["state"] == state)


async def test_work_is_delivered_and_processed_once_the_target_says_so(
    console: Console, workspace: str
) -> None:
    source, target = f"{workspace}-a", f"{workspace}-b"
    await online(console, source, target)
    delegation = await delegate(console, source, target, task="count the sheep")
    row = await until_state(console, source, delegation, "processed")
    assert row["status"] == "completed"
    assert row["response_preview"] == "done: count the sheep"
    await eventually(partial(console.record, target), lambda it: it["last_processed_at"] is not None)
    result = await console.client.get_workflow_handle(workflow_id_of(delegation)).result()
    assert isinstance(result, dict)
    assert result["state"] == "processed"
    history = await console.client.get_workflow_handle(workflow_id_of(delegation)).fetch_history()
    assert "sheep" not in history.to_json()


async def test_a_megabyte_of_unicode_is_processed_and_leaves_no_trace_in_the_history(
    console: Console, workspace: str
) -> None:
    source, target = f"{workspace}-a"[-63:], f"{workspace}-b"[-63:]
    await online(console, source, target)
    sheep = "größere Schafe 🐑 漢字 "
    task = sheep * (1024 * 1024 // len(sheep.encode()))
    delegation = await delegate(console, source, target, task=task)
    row = await until_state(console, source, delegation, "processed")
    assert row["response_preview"] == f"done: {task}"[:500]
    workflow = console.client.get_workflow_handle(workflow_id_of(delegation))
    await workflow.result()
    history = b"".join([event.SerializeToString() async for event in workflow.fetch_history_events()])
    assert delegation.encode() in history  # so would the task be
    assert len(history) < 65_536
    for trace in ("größere", "Schafe", "🐑"):
        # As text, and as JSON encodes it.
        assert trace.encode() not in history
        assert json.dumps(trace)[1:-1].encode() not in history


async def test_slow_work_is_in_progress_until_the_target_reports_it(
    console: Console, wire: Wire, workspace: str
) -> None:
    source, target = f"{workspace}-a"[-63:], f"{workspace}-b"[-63:]
    await online(console, source, target)
    await console.set_box_mode(target, "slow")
    # Its report is held until the previous state was observed.
    with wire.interfere(target, f"/workspaces/{target}/delegations/", delay=True):
        delegation = await delegate(console, source, target)
        await until_state(console, source, delegation, "in_progress")
    row = await until_state(console, source, delegation, "processed")
    assert (row["status"], row["response_preview"]) == ("completed", "done, slowly")


async def test_a_braindead_box_is_seen_recreated_and_the_new_one_does_its_work_once(
    console: Console, ledgers: Path, workspace: str
) -> None:
    source, target = f"{workspace}-a"[-63:], f"{workspace}-b"[-63:]
    await online(console, source, target)
    await console.set_box_mode(target, "braindead")
    work = [await delegate(console, source, target, task=f"part {number}") for number in range(5)]
    for delegation in work:
        row = await until_state(console, source, delegation, "delivered")
        assert row["status"] == "dispatched"
    status = await console.until_phase(target, Phase.DEGRADED)
    assert status.last_error is not None
    assert status.last_error.code == "not_processing"
    assert "not acknowledged" in status.last_error.message
    [processing] = [it for it in status.conditions if it.type == "Processing"]
    assert (processing.status, processing.reason) == ("false", "NotProcessing")
    assert {row["status"] for row in (await listed(console, source)).values()} == {"dispatched"}

    status = await console.until_phase(target, Phase.ONLINE, generation=2)
    for delegation in work:
        row = await until_state(console, source, delegation, "processed")
        assert row["status"] == "completed"
    assert sorted((ledgers / target).read_text().split()) == sorted(work)
    [own] = [it for it in await console.requests(target) if it.requested_by == "lifecycle"]
    assert "does not process" in own.reason
    record = await eventually(lambda: console.record(target), lambda it: it["last_error"] is None)
    assert record["work"] == []


async def test_what_cannot_be_delivered_becomes_a_dead_letter_that_a_human_decides_on(
    console: Console, workspace: str
) -> None:
    source, target = f"{workspace}-a", f"{workspace}-b"
    await online(console, source, target)
    await console.rows(
        "UPDATE generations SET url = 'http://x:1/' WHERE workspace_id = %s RETURNING 1", target
    )
    kept, given_up = [await delegate(console, source, target) for _ in range(2)]
    for delegation in (kept, given_up):
        await eventually(partial(description, console, delegation), bool)
    # Refused connections are not attempts; simulate five that were answered with an error:
    await console.rows(
        "UPDATE delegations SET attempts = 5, next_attempt_at = NULL WHERE target_id = %s RETURNING 1", target
    )
    for delegation in (kept, given_up):
        await console.client.get_workflow_handle(workflow_id_of(delegation)).signal("stirred")
    record = await eventually(
        lambda: console.record(target), lambda it: str(it["work"]).count("'held': 2") == 1
    )
    assert isinstance(record["work"], list)

    await console.client.get_workflow_handle(workflow_id_of(given_up)).signal(
        "give_up", {"requested_by": "admin:alice"}
    )
    row = await until_state(console, source, given_up, "canceled")
    assert (row["status"], row["error"]) == ("failed", "given up by admin:alice")
    record = await console.record(target)
    await console.rows(
        "UPDATE generations SET url = %s WHERE workspace_id = %s RETURNING 1",
        f"http://x:{await runtime_port(console)}/",
        target,
    )
    await console.client.get_workflow_handle(workflow_id_of(kept)).signal(
        "resend", {"requested_by": "admin:alice"}
    )
    await until_state(console, source, kept, "processed")


async def runtime_port(console: Console) -> int:
    """The port of the stack's runtimes."""
    [row] = await console.rows(
        "SELECT max(substring(url from ':([0-9]+)/?$')::integer) AS port FROM generations"
    )
    return int(str(row["port"]))


async def test_a_delegation_whose_workflow_is_canceled_or_terminated_still_ends(
    console: Console, workspace: str
) -> None:
    source, target = f"{workspace}-a"[-63:], f"{workspace}-b"[-63:]
    await online(console, source, target)
    await console.ask(target, "request_stop", requested_by="admin:alice")
    await console.until_phase(target, Phase.STOPPED)
    canceled, terminated = [await delegate(console, source, target) for _ in range(2)]
    for delegation in (canceled, terminated):
        await eventually(partial(description, console, delegation), bool)
    await console.client.get_workflow_handle(workflow_id_of(canceled)).cancel()
    row = await until_state(console, source, canceled, "canceled")
    assert row["error"] == "given up by cancellation of its workflow"
    await console.client.get_workflow_handle(workflow_id_of(terminated)).terminate()
    await console.ask(target, "request_start", requested_by="admin:alice")
    await until_state(console, source, terminated, "processed")


async def test_a_box_cannot_take_the_workflow_id_of_a_workspace_to_come(
    console: Console, workspace: str, stack: Stack
) -> None:
    source, target, later = [f"{workspace}-{name}" for name in ("a", "b", "c")]
    await online(console, source, target)
    token = token_file(await box_of(stack, source)).read_text().strip()
    answer = await console.http.post(
        f"/workspaces/{source}/delegations/record",
        json={"target_id": target, "task": "do it", "delegation_id": later},
        headers={"Authorization": f"Bearer {token}"},
    )
    assert answer.status_code == 202, answer.text
    await eventually(partial(description, console, later), bool)
    await console.start(later, WorkspaceSpec(canary=CanaryPolicy.OFF))
    await console.until_phase(later, Phase.ONLINE)
    assert (await listed(console, source))[later]["state"] == "queued"
    await console.client.get_workflow_handle(workflow_id_of(later)).cancel()
    await until_state(console, source, later, "canceled")


async def description(console: Console, delegation: str) -> bool:
    """Whether its workflow has read the ledger once."""
    try:
        status = await console.client.get_workflow_handle(workflow_id_of(delegation)).query("status")
    except RPCError:
        return False
    return isinstance(status, dict) and status["state"] is not None
