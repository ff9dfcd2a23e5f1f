"""A call leaves no context variables behind."""

import pytest
from structlog.contextvars import get_contextvars

from tests.register_api.platform import Platform

pytestmark = pytest.mark.anyio


async def test_a_call_leaves_no_name_behind_for_the_lines_of_the_next(platform: Platform) -> None:
    before = get_contextvars()
    box = await platform.workspace()
    assert (await box.enter_and_use()).token
    assert (await box.record(secret=True)).status_code in (200, 401)
    assert get_contextvars() == before
