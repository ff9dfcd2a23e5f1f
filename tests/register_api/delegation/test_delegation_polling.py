"""Clients that poll the list as runtimes in the field do get each result exactly once."""

import random
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from register_api.delegation import handlers
from store.delegation.delegation_queries import RESULT_LISTINGS
from tests.register_api.delegation.delegating import (
    ENDS,
    OPERATOR,
    STATUSES,
    api_token,
    bearer,
    become,
    delegated,
    listed,
    working,
)
from tests.register_api.platform import Box, Platform

pytestmark = pytest.mark.anyio

ROUNDS = RESULT_LISTINGS * 4
"""Polls until no result is shown again; 180 results take four pages per round."""


@pytest.fixture(autouse=True)
def the_same_ids_in_each_run(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The order of a page depends on the IDs: by chance alone, one result in half a million is never read."""
    rng = random.Random(request.node.name)
    monkeypatch.setattr(handlers, "uuid4", lambda: UUID(int=rng.getrandbits(128), version=4))


class Poller:
    """A client as in the field: it marks an ID as seen when it first reads a final status."""

    def __init__(self, platform: Platform, box: Box, *, every: timedelta, loses: int = 0) -> None:
        """It polls at the interval `every`, and loses one of `loses` responses."""
        self.platform, self.box, self.every, self.loses = platform, box, every, loses
        self.seen: dict[str, str] = {}
        self.polls = 0

    async def poll(self) -> list[dict[str, Any]]:
        """The results of this poll that the client had not seen."""
        await self.time_passes(self.every)
        self.polls += 1
        shown = await listed(self.box)
        assert len(shown) <= 50
        if self.loses and self.polls % self.loses == 0:
            return []  # the response was lost
        news = [it for it in shown if it["status"] in ("completed", "failed") and it["id"] not in self.seen]
        self.seen.update({it["id"]: it["status"] for it in news})
        return news

    async def time_passes(self, by: timedelta) -> None:
        await self.platform.database.execute(
            "UPDATE delegations SET created_at = created_at - %s WHERE source_id = %s",
            [by, self.box.workspace_id],
        )


async def work_that_ends_between_polls(
    platform: Platform, poller: Poller, *, count: int, most: int, seed: int, read_by_operator: bool = False
) -> dict[str, str]:
    """Delegate, finish in random order, poll until nothing is open; the statuses to be read."""
    rng, source = random.Random(seed), poller.box
    target = await working(platform)
    open_ = [await delegated(source, target) for _ in range(count)]
    rng.shuffle(open_)
    ended: dict[str, str] = {}
    while open_:
        for _ in range(min(len(open_), rng.randint(0, most))):
            one, state = open_.pop(), rng.choice(ENDS)
            await become(platform, one, state)
            ended[one] = STATUSES[state]
        if read_by_operator:
            await listed(source, headers=OPERATOR)
        await poller.poll()
        assert poller.seen.items() <= ended.items(), "it read a result too early, or another one"
    return ended


async def until_quiet(poller: Poller) -> None:
    """Poll for as long as lost results may be shown again."""
    for _ in range(ROUNDS):
        await poller.poll()


@pytest.mark.parametrize(("most", "read_by_operator"), [(20, True), (180, False)])
async def test_a_poller_gets_each_of_180_results_exactly_once(
    platform: Platform, most: int, read_by_operator: bool
) -> None:
    poller = Poller(platform, await working(platform), every=timedelta(seconds=10))
    ended = await work_that_ends_between_polls(
        platform, poller, count=180, most=most, seed=most, read_by_operator=read_by_operator
    )
    for _ in range(4):
        await poller.poll()
    assert poller.seen == ended
    assert len(ended) == 180


@pytest.mark.parametrize(("every", "most"), [(3, 180), (30, 20)])
async def test_a_poller_that_loses_every_third_answer_gets_each_of_180_results(
    platform: Platform, every: int, most: int
) -> None:
    poller = Poller(platform, await working(platform), every=timedelta(seconds=every), loses=3)
    ended = await work_that_ends_between_polls(
        platform, poller, count=180, most=most, seed=most, read_by_operator=True
    )
    await until_quiet(poller)
    missed = ended.keys() - poller.seen.keys()
    assert not missed, f"{len(missed)} of {len(ended)} results were never read"
    assert poller.seen == ended


@pytest.mark.parametrize("reader", ["an API token", "an operator"])
async def test_polls_by_others_leave_all_results_to_the_sources_own_box(
    platform: Platform, reader: str
) -> None:
    poller = Poller(platform, await working(platform), every=timedelta(0))
    target = await working(platform)
    ended = [await delegated(poller.box, target) for _ in range(15)]
    for delegation in ended:
        await become(platform, delegation, "processed")
    for _ in range(50):  # the results are on no page of the newest delegations
        await delegated(poller.box, target)
    headers = OPERATOR if reader == "an operator" else bearer(await api_token(poller.box))
    for _ in range(RESULT_LISTINGS + 1):
        assert len(await listed(poller.box, headers=headers)) == 50
    await poller.poll()
    assert poller.seen.keys() == set(ended)
