"""The audit log under a flood: one row per ten seconds and kind of refusal, and every refusal is counted."""

import asyncio
from dataclasses import dataclass, field, replace
from ipaddress import ip_address
from itertools import pairwise
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from register_api.auth import audit as auth_audit
from register_api.auth.audit import REPEAT_INTERVAL_SECONDS, Auditor
from store.db.pool import Connection
from store.registration import audit as registration_audit
from store.registration.audit import AuditEntry
from tests.register_api.platform import Platform

pytestmark = pytest.mark.anyio

NO_CONNECTION = cast("Connection", None)

REFUSAL = AuditEntry(
    workspace_id="ws-1",
    generation=1,
    operation="register",
    identity="unproven",
    credential_kind="absent",
    code="token_missing",
    token_prefix=None,
    source=ip_address("203.0.113.1"),
    from_box=False,
    needs_attention=False,
    request_id="r",
)


@dataclass
class FakeAuditLog:
    """An auditor with a fake clock, and the rows that it wrote with their times."""

    auditor: Auditor = field(default_factory=Auditor)
    now: float = 1_000_000.0
    rows: list[tuple[float, AuditEntry]] = field(default_factory=list)

    async def append(self, _: Connection, entry: AuditEntry) -> None:
        self.rows.append((self.now, entry))

    async def refuse(self, entry: AuditEntry, *, times: int = 1) -> None:
        for _ in range(times):
            await self.auditor.write_refusal(NO_CONNECTION, entry)

    def repeats(self) -> list[int]:
        return [entry.repeats for _, entry in self.rows]


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> FakeAuditLog:
    log = FakeAuditLog()
    monkeypatch.setattr(auth_audit, "monotonic", lambda: log.now)
    monkeypatch.setattr(registration_audit, "append", log.append)
    return log


@pytest.mark.parametrize(
    "other",
    [
        replace(REFUSAL, workspace_id="ws-2"),
        replace(REFUSAL, operation="heartbeat"),
        replace(REFUSAL, code="token_invalid"),
        replace(REFUSAL, source=ip_address("203.0.113.2")),
        replace(REFUSAL, source=None),
    ],
)
async def test_a_flood_hides_no_refusal_of_another_kind(log: FakeAuditLog, other: AuditEntry) -> None:
    await log.refuse(REFUSAL, times=100)
    await log.refuse(other, times=100)
    assert [entry for _, entry in log.rows] == [REFUSAL, other]


async def test_an_alert_about_unknown_callers_is_thinned_out_or_it_would_be_a_way_to_fill_the_disk(
    log: FakeAuditLog,
) -> None:
    await log.refuse(replace(REFUSAL, needs_attention=True), times=20)
    log.now += REPEAT_INTERVAL_SECONDS
    await log.refuse(replace(REFUSAL, needs_attention=True))
    assert log.repeats() == [0, 19]


async def test_what_is_remembered_has_a_bound_and_the_least_recent_count_goes_first(
    log: FakeAuditLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(auth_audit, "TRACKED_REFUSALS_LIMIT", 2)
    first, second, third = (replace(REFUSAL, workspace_id=f"ws-{number}") for number in range(3))
    for entry in (first, second, first, third, first):
        await log.refuse(entry)
    assert [entry for _, entry in log.rows] == [first, second, third]
    await log.refuse(second)  # its count was dropped
    assert [entry for _, entry in log.rows] == [first, second, third, second]


SOURCES = [REFUSAL, replace(REFUSAL, source=ip_address("203.0.113.2"))]


@given(course=st.lists(st.tuples(st.sampled_from(SOURCES), st.floats(0, 15)), max_size=50))
def test_rows_of_a_kind_are_ten_seconds_apart_and_account_for_every_refusal(
    course: list[tuple[AuditEntry, float]],
) -> None:
    log = FakeAuditLog()

    async def play() -> None:
        for entry, seconds in course:
            log.now += seconds
            await log.refuse(entry)
        log.now += REPEAT_INTERVAL_SECONDS
        for entry in SOURCES:  # writes what was counted since the last row
            await log.refuse(entry)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(auth_audit, "monotonic", lambda: log.now)
        patched.setattr(registration_audit, "append", log.append)
        asyncio.run(play())
    for source in SOURCES:
        rows = [(at, entry) for at, entry in log.rows if entry.source == source.source]
        came = sum(entry is source for entry, _ in course) + 1
        assert sum(1 + entry.repeats for _, entry in rows) == came
        times = [at for at, _ in rows]
        assert all(later - earlier >= REPEAT_INTERVAL_SECONDS for earlier, later in pairwise(times))


async def test_over_http_a_flood_about_a_workspace_is_a_row_and_its_count(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1_000_000.0
    monkeypatch.setattr(auth_audit, "monotonic", lambda: now)
    box = await platform.workspace()
    for _ in range(30):
        assert (await box.register()).status_code == 401
        assert (await box.heartbeat()).status_code == 401
    now += REPEAT_INTERVAL_SECONDS
    assert (await box.register()).status_code == 401
    rows = await platform.rows(
        "SELECT operation, repeats, needs_attention FROM audit_log WHERE workspace_id = %s ORDER BY audit_id",
        box,
    )
    assert [tuple(row.values()) for row in rows] == [
        ("register", 0, True),  # an alert, because the box may be locked out while no token is live
        ("heartbeat", 0, False),
        ("register", 29, True),
    ]
