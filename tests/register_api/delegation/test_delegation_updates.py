"""Progress reports: forward only, from authorized callers only, and never after the end."""

import itertools
from dataclasses import replace
from typing import Any

import pytest

from tests.register_api.delegation.delegating import (
    OPERATOR,
    STATUSES,
    api_token,
    at_address,
    bearer,
    code,
    delegated,
    record,
    row,
    said,
    update,
    wakeups,
    working,
)
from tests.register_api.platform import Box, Platform

pytestmark = pytest.mark.anyio

STATES = {
    "queued": "queued",
    "acked": "acked",
    "in_progress": "in_progress",
    "completed": "processed",
    "failed": "failed",
}
"""The reported statuses, and the states that they lead to."""

RANKS = dict.fromkeys(STATUSES, 4) | {"queued": 0, "delivered": 1, "acked": 2, "in_progress": 3}
NOTHING: dict[str, str] = {}


async def sent(platform: Platform, source: Box, target: Box, state: str = "delivered", **body: Any) -> str:
    """A delegation in the given state at the target's current box."""
    delegation = await delegated(source, target, **body)
    await platform.database.execute(
        "UPDATE delegations SET state = %(state)s, error = 'e', delivered_at = now(),"
        " attempts = CASE WHEN %(state)s = 'queued' THEN 0 ELSE 1 END,"
        " target_generation = CASE WHEN %(state)s <> 'queued' THEN %(generation)s::integer END,"
        " ended_at = CASE WHEN %(ended)s THEN now() END WHERE delegation_id = %(id)s",
        {"state": state, "generation": target.generation, "ended": RANKS[state] == 4, "id": delegation},
    )
    return delegation


def without_progress(written: dict[str, Any]) -> dict[str, Any]:
    """The row without the columns that any progress report changes."""
    return {name: value for name, value in written.items() if name not in ("progressed_at", "stalled")}


@pytest.mark.parametrize(("state", "status"), list(itertools.product(STATUSES, STATES)))
async def test_a_report_moves_it_forward_or_changes_nothing(
    platform: Platform, state: str, status: str
) -> None:
    source, target = await working(platform), await working(platform)
    delegation = await sent(platform, source, target, state)
    before = await row(platform, delegation)
    forward = RANKS[STATES[status]] > RANKS[state]
    after = STATES[status] if forward else state
    assert (
        await said(target, delegation, status, response_preview="so far", error="too late") == STATUSES[after]
    )
    written = await row(platform, delegation)
    assert (written["state"], written["ended_at"] is not None) == (after, RANKS[after] == 4)
    if forward:
        assert (written["target_generation"], written["attempts"]) == (target.generation, 1)
        assert written["response_preview"] == "so far"
        assert written["error"] == ("too late" if after == "failed" else None)
        assert written["error_code"] == ("target_failed" if after == "failed" else None)
    else:
        assert without_progress(written) == without_progress(before)
    if RANKS[state] == 4:
        assert written == before
    assert await wakeups(platform, delegation) == (2 if forward else 1), (
        "woken on creation, and when the state changes"
    )


async def test_the_first_of_two_ends_stays_unchanged(platform: Platform) -> None:
    source, target = await working(platform), await working(platform)
    delegation = await sent(platform, source, target)
    assert await said(target, delegation, "failed", error="no sheep", response_preview="0") == "failed"
    first = await row(platform, delegation)
    assert first["error"] == "no sheep"
    for status in STATES:
        assert await said(target, delegation, status, error="other", response_preview="1") == "failed"
        assert await row(platform, delegation) == first


async def test_a_failure_without_an_error_still_has_an_error(platform: Platform) -> None:
    source, target = await working(platform), await working(platform)
    for nothing in ({}, {"error": ""}, {"error": None}):
        delegation = await sent(platform, source, target)
        await said(target, delegation, "failed", **nothing)
        assert (await row(platform, delegation))["error"]


async def test_texts_are_kept_of_a_bounded_length(platform: Platform) -> None:
    source, target = await working(platform), await working(platform)
    delegation = await sent(platform, source, target)
    await said(target, delegation, "failed", error="a\0b" + "x" * 5000, response_preview="字" * 5000)
    written = await row(platform, delegation)
    assert written["error"] == "ab" + "x" * 1998
    assert written["response_preview"] == "字" * 2000


@pytest.mark.parametrize(
    "status", ["processed", "delivered", "dispatched", "expired", "canceled", "Completed", "", None, 1]
)
async def test_other_statuses_are_refused(platform: Platform, status: Any) -> None:
    source, target = await working(platform), await working(platform)
    delegation = await sent(platform, source, target)
    before = await row(platform, delegation)
    assert code(await update(target, delegation, status)) == (400, "body_invalid")
    assert (await row(platform, delegation), await wakeups(platform, delegation)) == (before, 1)


async def test_progress_is_noted_and_unstalls(platform: Platform) -> None:
    source, target = await working(platform), await working(platform)
    for state, status in (("in_progress", "in_progress"), ("in_progress", "acked"), ("acked", "in_progress")):
        delegation = await sent(platform, source, target, state)
        await platform.database.execute(
            "UPDATE delegations SET stalled = true, progressed_at = now() - interval '1 hour'"
            " WHERE delegation_id = %s",
            [delegation],
        )
        assert await said(target, delegation, status) == "in_progress"
        assert await wakeups(platform, delegation) == 2, "its workflow must schedule the next stall"
        [written] = await (
            await platform.database.execute(
                "SELECT stalled, now() - progressed_at < interval '1 minute' AS fresh FROM delegations"
                " WHERE delegation_id = %s",
                [delegation],
            )
        ).fetchall()
        assert written == {"stalled": False, "fresh": True}


async def test_what_was_processed_is_noted_of_the_box_and_reported_once(platform: Platform) -> None:
    source, target = await working(platform), await working(platform)
    query = "SELECT last_processed_at FROM generations WHERE workspace_id = %s"
    events = [event for event in await platform.events(target) if event[1] != "processing"]
    for status in ("acked", "in_progress", "failed"):
        await said(target, await sent(platform, source, target), status)
    assert await platform.rows(query, target) == [{"last_processed_at": None}]
    first, second = await sent(platform, source, target), await sent(platform, source, target)
    await said(target, first, "completed")
    [at] = await platform.rows(query, target)
    assert at["last_processed_at"] is not None
    await said(target, first, "completed")
    assert await platform.rows(query, target) == [at]
    await said(target, second, "completed")
    assert (await platform.rows(query, target))[0]["last_processed_at"] > at["last_processed_at"]
    assert await platform.events(target) == [*events, (1, "processing")]
    assert (await platform.rows(query, source))[0]["last_processed_at"] is None


async def test_only_the_target_updates_delegated_work(platform: Platform) -> None:
    source, target, other = [await working(platform) for _ in range(3)]
    delegation = await sent(platform, source, target)
    before = await row(platform, delegation)
    for status in STATES:
        assert code(await update(source, delegation, status)) == (403, "delegation_not_yours")
        assert code(await update(other, delegation, status)) == (404, "delegation_unknown")
        assert code(await update(target, "nothing", status)) == (404, "delegation_unknown")
    assert (await row(platform, delegation), await wakeups(platform, delegation)) == (before, 1)
    assert code(await update(target, "%00", "acked")) == (404, "delegation_unknown")


async def test_only_the_source_updates_recorded_work(platform: Platform) -> None:
    source, target, other = [await working(platform) for _ in range(3)]
    name = f"own-{source.workspace_id}"
    assert (await record(source, target, name)).status_code == 202
    assert code(await update(target, name, "completed")) == (403, "delegation_not_yours")
    assert code(await update(other, name, "completed")) == (404, "delegation_unknown")
    assert (await row(platform, name))["state"] == "queued"
    for count, (status, shown) in enumerate(
        {"queued": "queued", "acked": "in_progress", "in_progress": "in_progress"}.items()
    ):
        assert await said(source, name, status) == shown
        assert await wakeups(platform, name) == count + 1
    assert await said(source, name, "acked") == "in_progress"
    assert (await row(platform, name))["state"] == "in_progress"
    assert await said(source, name, "completed", response_preview="done") == "completed"
    first = await row(platform, name)
    assert (first["state"], first["response_preview"], first["error"]) == ("processed", "done", None)
    for status in STATES:
        assert await said(source, name, status, error="e", response_preview="other") == "completed"
    assert await row(platform, name) == first
    # a recorded delegation is no evidence about the target's box
    for box in (source, target):
        query = "SELECT last_processed_at FROM generations WHERE workspace_id = %s"
        assert await platform.rows(query, box) == [{"last_processed_at": None}]


async def test_no_box_reports_on_a_canary(platform: Platform) -> None:
    target, name = await working(platform), "canary-of-the-control-plane"
    await platform.database.execute(
        "INSERT INTO delegations (delegation_id, type, target_id, task) VALUES (%s, 'canary', %s, 'alive?')",
        [name, target.workspace_id],
    )
    assert (await update(target, name, "completed")).status_code in (403, 404)
    assert (await row(platform, name))["state"] == "queued"


async def test_the_address_alone_is_enough_for_all_but_a_terminal_status(platform: Platform) -> None:
    source, target = await working(platform), await working(platform)
    delegation = await sent(platform, source, target)
    for headers in (NOTHING, bearer("x" * 43)):
        for status in STATES:  # from another address it is refused
            assert (await update(target, delegation, status, headers=headers)).status_code == 401
    await at_address(platform, target)
    for headers in (NOTHING, bearer("x" * 43)):
        assert await said(target, delegation, "queued", headers=headers) == "dispatched"
    assert await said(target, delegation, "acked", headers=NOTHING) == "in_progress"
    assert await said(target, delegation, "in_progress", headers=NOTHING) == "in_progress"
    before = await row(platform, delegation)
    for status, headers in itertools.product(("completed", "failed"), (NOTHING, bearer("x" * 43))):
        assert (await update(target, delegation, status, headers=headers)).status_code == 401
    secret = bearer(target.secret)
    assert code(await update(target, delegation, "completed", headers=secret)) == (401, "reregister_required")
    assert await row(platform, delegation) == before
    assert await said(target, delegation, "completed") == "completed"


async def test_tools_and_operators_are_no_boxes(platform: Platform) -> None:
    source, target = await working(platform), await working(platform)
    delegation = await sent(platform, source, target)
    for headers, status in itertools.product((OPERATOR, bearer(await api_token(target))), STATES):
        assert (await update(target, delegation, status, headers=headers)).status_code == 401
    assert (await row(platform, delegation))["state"] == "delivered"


@pytest.mark.parametrize("status", STATES)
async def test_a_box_of_an_older_generation_changes_nothing(platform: Platform, status: str) -> None:
    source, target = await working(platform), await working(platform)
    delegation = await sent(platform, source, target, "in_progress")
    before = await row(platform, delegation)
    new = await (await platform.replaced(target)).enter_and_use()
    await at_address(platform, new)  # even from the address that the new box has now
    for headers in (target.headers(), bearer(target.secret)):
        assert code(await update(target, delegation, status, headers=headers)) == (410, "superseded")
    # the new box cannot report on a delivery to the old one
    assert await said(new, delegation, status) == "in_progress"
    assert await row(platform, delegation) == before
    name = f"own-{status}-{target.workspace_id}"
    assert code(await record(target, source, name)) == (410, "superseded")
    assert (await record(new, source, name)).status_code == 202
    assert code(await update(target, name, status)) == (410, "superseded")
    assert (await row(platform, name))["state"] == "queued"


async def test_a_box_of_a_stopped_or_deleted_workspace_changes_nothing(platform: Platform) -> None:
    for intent, refusal in (("stop", "workspace_stopped"), ("delete", "workspace_removed")):
        source, target = await working(platform), await working(platform)
        delegation = await sent(platform, source, target, "in_progress")
        before = await row(platform, delegation)
        await platform.intend(target, intent)
        for status in STATES:
            assert code(await update(target, delegation, status)) == (410, refusal)
        assert await row(platform, delegation) == before


async def test_an_unproven_caller_does_not_learn_which_workspaces_and_delegations_exist(
    platform: Platform,
) -> None:
    source, target = await working(platform), await working(platform)
    delegation = await sent(platform, source, target)
    nowhere = replace(target, workspace_id="nowhere")
    bodies = {
        (answer.status_code, answer.json()["code"], answer.json()["error"])
        for box in (target, nowhere)
        for name in (delegation, "nothing")
        for answer in [await update(box, name, "completed", headers=NOTHING)]
    }
    assert len(bodies) == 1
