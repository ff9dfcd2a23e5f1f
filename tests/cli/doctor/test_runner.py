"""All examinations run, whatever becomes of the others."""

import asyncio
from collections.abc import Sequence

import pytest

from cli.doctor.model import Finding, Status, ok
from cli.doctor.runner import CheckGroup, run_checks

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def well() -> Sequence[Finding]:
    return [ok("well.done", "yes")]


async def broken() -> Sequence[Finding]:
    raise ZeroDivisionError("hunter2")


async def endless() -> Sequence[Finding]:
    await asyncio.Event().wait()
    return []


async def test_one_that_breaks_and_one_that_never_ends_keep_nothing_from_the_others() -> None:
    said: list[str] = []
    subjects = {"broken": broken, "endless": endless, "well": well}
    findings = await run_checks(
        [CheckGroup(subject=name, run=look) for name, look in subjects.items()],
        notify=said.append,
        timeout_seconds=0.3,
        notice_seconds=0.05,
    )
    assert [(each.check, each.status) for each in findings] == [
        ("broken.check", Status.FAILED),
        ("endless.time", Status.FAILED),
        ("well.done", Status.OK),
    ]
    assert "ZeroDivisionError" in findings[0].message
    assert "hunter2" not in findings[0].message
    assert any("endless" in each for each in said)
