"""All examinations run, whatever becomes of the others."""

import asyncio
from collections.abc import Sequence

import pytest

from workers.doctor.examining import Examination, examine
from workers.doctor.model import Finding, Status, ok

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
    findings = await examine(
        [Examination(subject=name, look=look) for name, look in subjects.items()],
        waiting=said.append,
        too_long=0.3,
        worth_saying=0.05,
    )
    assert [(each.check, each.status) for each in findings] == [
        ("broken.check", Status.FAILED),
        ("endless.time", Status.FAILED),
        ("well.done", Status.OK),
    ]
    assert "ZeroDivisionError" in findings[0].told
    assert "hunter2" not in findings[0].told
    assert any("endless" in each for each in said)
