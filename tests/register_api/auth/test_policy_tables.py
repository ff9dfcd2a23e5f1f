"""Unauthenticated heartbeats over HTTP under every policy; only the caller's address shows whose they are.

Only what the policy changes: `test_identity` covers every combination of evidence and policy. All calls come
from `PEER`.
"""

from dataclasses import replace

import pytest

from register_api.http.config import BootstrapPolicy
from tests.register_api.platform import Box, Platform
from tests.register_api.rows import (
    ELSEWHERE,
    FULL,
    PEER,
    locate,
    platform_under,
    refusal,
    send_heartbeat,
    unauthenticated,
)

pytestmark = pytest.mark.anyio


async def located(platform: Platform, address: str | None) -> Box:
    """A new box whose address is recorded, unless it is None."""
    box = await platform.workspace()
    await locate(platform, box, address)
    return box


@pytest.mark.parametrize("policy", BootstrapPolicy)
async def test_row_heartbeat_three_full_ones_from_the_recorded_address_credential_lost_under_every_policy(
    database: str, policy: BootstrapPolicy
) -> None:
    code = "reregister_required" if policy is BootstrapPolicy.ADDRESS else "token_missing"
    async with platform_under(policy, database) as platform:
        box = await (await located(platform, PEER)).enter_and_use()
        bare = replace(box, token=None)
        tokens = await platform.tokens(box)
        for number in (1, 2, 3):
            assert refusal(await send_heartbeat(bare, FULL)) == (401, code, "reregister")
            assert await unauthenticated(platform, box) == (number, number == 3)
        assert (await platform.events(box)).count((1, "credential_lost")) == 1
        assert await platform.tokens(box) == tokens


@pytest.mark.parametrize("policy", BootstrapPolicy)
@pytest.mark.parametrize("address", [ELSEWHERE, None])
async def test_row_heartbeat_full_ones_from_anywhere_else_count_for_no_box_under_every_policy(
    database: str, policy: BootstrapPolicy, address: str | None
) -> None:
    async with platform_under(policy, database) as platform:
        box = await (await located(platform, PEER)).enter_and_use()
        await locate(platform, box, address)
        before = await platform.everything(box)
        for _ in range(3):
            answer = await send_heartbeat(replace(box, token=None), FULL)
            assert answer.status_code == (
                503 if (policy, address) == (BootstrapPolicy.ADDRESS, None) else 401
            )
        assert await platform.everything(box) == before
