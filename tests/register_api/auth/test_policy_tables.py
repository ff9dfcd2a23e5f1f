"""Register and heartbeat over HTTP under the policies `address` and `both`, which use the caller's address.

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
    UNKNOWN_TOKEN,
    boxes_by_what_is_live,
    decided,
    locate,
    platform_under,
    refusal,
    send_heartbeat,
    token_of,
    unauthenticated,
)

pytestmark = pytest.mark.anyio


async def located(platform: Platform, address: str | None) -> Box:
    """A new box whose address is recorded, unless it is None."""
    box = await platform.workspace()
    await locate(platform, box, address)
    return box


async def test_row_not_valid_undetermined_any_503_by_address_while_none_is_on_record(database: str) -> None:
    async with platform_under(BootstrapPolicy.ADDRESS, database) as platform:
        for box in (await boxes_by_what_is_live(platform)).values():
            before = await platform.everything(box)
            for bearer in (None, UNKNOWN_TOKEN):
                answer = await box.register(bearer=bearer, url="http://10.0.0.7:8000")
                assert refusal(answer) == (503, "instance_not_ready", "retry")
            assert await platform.everything(box) == before
            assert await decided(platform, box) == ("absent", "undetermined", "instance_not_ready", False)


async def test_row_not_valid_stale_included_current_0_200_and_token_by_address(database: str) -> None:
    async with platform_under(BootstrapPolicy.ADDRESS, database) as platform:
        old = await (await located(platform, PEER)).enter_and_use()
        box = replace(await platform.replaced(old), token=old.token)
        await locate(platform, box, PEER)
        token = token_of(await box.register(url="http://127.0.0.1:8000"))
        assert token not in (None, box.token)
        assert (await platform.tokens(box))[-1] == "pending"
        assert await decided(platform, box) == ("not_valid", "current", "minted", False)
        assert (await box.heartbeat(bearer=token)).status_code == 200


async def test_row_not_valid_current_0_200_and_token_by_both(database: str) -> None:
    async with platform_under(BootstrapPolicy.BOTH, database) as platform:
        box = await located(platform, PEER)
        assert token_of(await box.register(secret=True)) is not None
        assert await platform.tokens(box) == ["pending"]
        assert await decided(platform, box) == ("not_valid", "current", "minted", False)


async def test_rows_absent_and_other_unproven_any_401_by_address_from_elsewhere(database: str) -> None:
    async with platform_under(BootstrapPolicy.ADDRESS, database) as platform:
        for live, box in (await boxes_by_what_is_live(platform, ELSEWHERE)).items():
            before = await platform.everything(box)
            for bearer, hit in (
                (None, ("absent", "token_missing")),
                (UNKNOWN_TOKEN, ("not_valid", "token_invalid")),
            ):
                answer = await box.register(bearer=bearer)
                assert refusal(answer) == (401, hit[1], "contact_operator")
                assert await decided(platform, box) == (hit[0], "unproven", hit[1], live == "none")
            assert await platform.everything(box) == before


async def test_rows_absent_and_other_unproven_any_401_by_both_if_either_is_missing(database: str) -> None:
    async with platform_under(BootstrapPolicy.BOTH, database) as platform:
        for live, box in (await boxes_by_what_is_live(platform, PEER)).items():
            before = await platform.everything(box)
            assert refusal(await box.register()) == (401, "token_missing", "contact_operator")
            assert await decided(platform, box) == ("absent", "unproven", "token_missing", live == "none")
            assert await platform.everything(box) == before

            await locate(platform, box, ELSEWHERE)
            before = await platform.everything(box)
            answer = await box.register(secret=True)
            assert refusal(answer) == (401, "token_invalid", "contact_operator")
            assert await decided(platform, box) == ("not_valid", "unproven", "token_invalid", live == "none")
            assert await platform.everything(box) == before


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
