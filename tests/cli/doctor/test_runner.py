"""Check groups run independently of each other."""

import asyncio
from collections.abc import Sequence

import pytest

from cli.doctor.model import Finding, Status, ok
from cli.doctor.runner import CheckGroup, run_checks

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def healthy() -> Sequence[Finding]:
    return [ok("healthy.done", "yes")]


async def broken() -> Sequence[Finding]:
    raise ZeroDivisionError("hunter2")


async def endless() -> Sequence[Finding]:
    await asyncio.Event().wait()
    return []


async def test_a_failing_group_and_an_endless_group_do_not_affect_others() -> None:
    notices: list[str] = []
    subjects = {"broken": broken, "endless": endless, "healthy": healthy}
    findings = await run_checks(
        [CheckGroup(subject=name, run=check) for name, check in subjects.items()],
        notify=notices.append,
        timeout_seconds=0.3,
        notice_seconds=0.05,
    )
    assert [(each.check, each.status) for each in findings] == [
        ("broken.check", Status.FAILED),
        ("endless.time", Status.FAILED),
        ("healthy.done", Status.OK),
    ]
    assert "ZeroDivisionError" in findings[0].message
    assert "hunter2" not in findings[0].message
    assert any("endless" in each for each in notices)
