"""The rows of both tables under `BOOTSTRAP_POLICY` `address` and `both`, where the peer's address counts.

The rows under `secret` have modules of their own. All calls come from `PEER`.
"""

from dataclasses import replace

import pytest

from register_api.auth.identity import BootstrapPolicy
from tests.register_api import rows
from tests.register_api.platform import Box, Platform
from tests.register_api.rows import (
    ELSEWHERE,
    FULL,
    LATER,
    PEER,
    UNKNOWN_TOKEN,
    boxes_by_what_is_live,
    decided,
    locate,
    platform_under,
    refusal,
    send_beat,
    strikes,
    token_of,
)

pytestmark = pytest.mark.anyio


async def located(platform: Platform, address: str | None) -> Box:
    """A new box, with an address on record or without one."""
    box = await platform.workspace()
    await locate(platform, box, address)
    return box


async def test_row_any_superseded_410_by_address_a_token_from_elsewhere_names_an_old_box(
    database: str,
) -> None:
    async with platform_under(BootstrapPolicy.ADDRESS, database) as platform:
        old = await (await located(platform, PEER)).enter_and_use()
        new = await platform.replaced(old)
        await locate(platform, new, ELSEWHERE)
        await rows.age_end(platform, old)
        before = await platform.everything(new)
        for answer in (await old.register(), await replace(old, token=None).register(secret=True)):
            assert refusal(answer) == (410, "superseded", "shutdown")
        *unchanged, fact = await platform.everything(new)
        assert unchanged == before
        assert (fact["generation"], fact["kind"]) == (1, "superseded_call")
        assert await decided(platform, old) == ("not_valid", "superseded", "superseded", True)


async def test_row_not_valid_undetermined_any_503_by_address_while_none_is_on_record(database: str) -> None:
    async with platform_under(BootstrapPolicy.ADDRESS, database) as platform:
        for box in (await boxes_by_what_is_live(platform)).values():
            before = await platform.everything(box)
            for bearer in (None, UNKNOWN_TOKEN):
                answer = await box.register(bearer=bearer, url="http://10.0.0.7:8000")
                assert refusal(answer) == (503, "instance_not_ready", "retry")
            assert await platform.everything(box) == before
            assert await decided(platform, box) == ("absent", "undetermined", "instance_not_ready", False)


async def test_row_not_valid_undetermined_503_by_address_with_the_stale_file_of_the_old_box(
    database: str,
) -> None:
    async with platform_under(BootstrapPolicy.ADDRESS, database) as platform:
        old = await (await located(platform, PEER)).enter_and_use()
        new = replace(await platform.replaced(old), token=old.token)
        await rows.age_end(platform, old)
        before = await platform.everything(new)
        assert refusal(await new.register()) == (503, "instance_not_ready", "retry")
        assert await platform.everything(new) == before


async def test_row_not_valid_undetermined_any_503_by_both_while_no_address_is_on_record(
    database: str,
) -> None:
    async with platform_under(BootstrapPolicy.BOTH, database) as platform:
        for box in (await boxes_by_what_is_live(platform, PEER)).values():
            await locate(platform, box, None)
            before = await platform.everything(box)
            for answer in (await box.register(secret=True), await box.register(bearer=box.secret)):
                assert refusal(answer) == (503, "instance_not_ready", "retry")
            assert await platform.everything(box) == before
            assert await decided(platform, box) == ("not_valid", "undetermined", "instance_not_ready", False)


@pytest.mark.parametrize("stale", [False, True])
async def test_row_not_valid_stale_included_current_0_200_and_token_by_address(
    database: str, stale: bool
) -> None:
    async with platform_under(BootstrapPolicy.ADDRESS, database) as platform:
        box = await located(platform, PEER)
        if stale:
            old = await box.enter_and_use()
            box = replace(await platform.replaced(old), token=old.token)
            await locate(platform, box, PEER)
        token = token_of(await box.register(url="http://127.0.0.1:8000"))
        assert token not in (None, box.token)
        assert (await platform.tokens(box))[-1] == "pending"
        bearer = "not_valid" if stale else "absent"
        assert await decided(platform, box) == (bearer, "current", "minted", False)
        assert (await box.beat(bearer=token)).status_code == 200


async def test_row_not_valid_current_0_200_and_token_by_both(database: str) -> None:
    async with platform_under(BootstrapPolicy.BOTH, database) as platform:
        box = await located(platform, PEER)
        assert token_of(await box.register(secret=True)) is not None
        assert await platform.tokens(box) == ["pending"]
        assert await decided(platform, box) == ("not_valid", "current", "minted", False)


async def test_rows_absent_current_pending_in_use_and_quiet_by_address(database: str) -> None:
    async with platform_under(BootstrapPolicy.ADDRESS, database) as platform:
        bare = await located(platform, PEER)
        first = token_of(await bare.register())
        assert token_of(await bare.register()) == first
        assert await decided(platform, bare) == ("absent", "current", "replayed", False)

        assert (await bare.beat(bearer=first)).status_code == 200
        before = await platform.everything(bare)
        assert refusal(await bare.register()) == (503, "token_in_use", "retry")
        assert await platform.everything(bare) == before

        await platform.age(bare, LATER)
        assert token_of(await bare.register()) not in (None, first)
        assert await platform.tokens(bare) == ["retiring", "pending"]


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
async def test_rows_active_and_pending_current_200_with_a_live_token_the_address_is_not_asked_for(
    database: str, policy: BootstrapPolicy
) -> None:
    async with platform_under(policy, database) as platform:
        for address in (ELSEWHERE, None):
            box = await (await located(platform, PEER)).enter()
            await locate(platform, box, address)
            for _ in range(2):  # the first one confirms it
                assert token_of(await box.register()) is None
                assert (await box.beat()).status_code == 200
                assert await platform.tokens(box) == ["active"]


async def test_row_heartbeat_proof_by_address_without_a_token_401_reregister_required(database: str) -> None:
    async with platform_under(BootstrapPolicy.ADDRESS, database) as platform:
        for box in (await boxes_by_what_is_live(platform, PEER)).values():
            before = await platform.everything(box)
            for bearer in (None, UNKNOWN_TOKEN):
                assert refusal(await box.beat(bearer=bearer)) == (401, "reregister_required", "reregister")
            assert await platform.everything(box) == before
            assert await decided(platform, box) == ("absent", "current", "reregister_required", False)


async def test_row_heartbeat_undetermined_503_instance_not_ready_by_address(database: str) -> None:
    async with platform_under(BootstrapPolicy.ADDRESS, database) as platform:
        for box in (await boxes_by_what_is_live(platform)).values():
            before = await platform.everything(box)
            assert refusal(await send_beat(box, FULL)) == (503, "instance_not_ready", "retry")
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
            assert refusal(await send_beat(bare, FULL)) == (401, code, "reregister")
            assert await strikes(platform, box) == (number, number == 3)
        assert (await platform.facts(box)).count((1, "credential_lost")) == 1
        assert await platform.tokens(box) == tokens


@pytest.mark.parametrize("policy", BootstrapPolicy)
@pytest.mark.parametrize("address", [ELSEWHERE, None])
async def test_row_heartbeat_full_ones_from_anywhere_else_strike_nobody_under_every_policy(
    database: str, policy: BootstrapPolicy, address: str | None
) -> None:
    async with platform_under(policy, database) as platform:
        box = await (await located(platform, PEER)).enter_and_use()
        await locate(platform, box, address)
        before = await platform.everything(box)
        for _ in range(3):
            answer = await send_beat(replace(box, token=None), FULL)
            assert answer.status_code == (
                503 if (policy, address) == (BootstrapPolicy.ADDRESS, None) else 401
            )
        assert await platform.everything(box) == before
