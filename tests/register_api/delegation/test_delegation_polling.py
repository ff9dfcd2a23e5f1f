"""Clients that poll the list as runtimes in the field do: each gets each result exactly once."""

import random
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from register_api.delegation import handlers
from store.delegation.delegation_queries import RESULT_LISTINGS
from tests.register_api.delegation.delegating import ENDS, OPERATOR, WORDS, become, delegated, listed, working
from tests.register_api.platform import Box, Platform

pytestmark = pytest.mark.anyio

ROUNDS = RESULT_LISTINGS * 4
"""Polls until no end is shown any more for its own sake: 180 of them take four pages a time."""


@pytest.fixture(autouse=True)
def the_same_ids_in_each_run(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The order of a page depends on the IDs: by chance alone, one result in half a million is never read."""
    dice = random.Random(request.node.name)
    monkeypatch.setattr(handlers, "uuid4", lambda: UUID(int=dice.getrandbits(128), version=4))


class Poller:
    """A client as in the field: it reads two words, and marks an ID as seen for ever at the first of them."""

    def __init__(self, platform: Platform, box: Box, *, every: timedelta, loses: int = 0) -> None:
        """It polls so often, and of so many answers one does not arrive."""
        self.platform, self.box, self.every, self.loses = platform, box, every, loses
        self.seen: dict[str, str] = {}
        self.polls = 0

    async def poll(self) -> list[dict[str, Any]]:
        """What this poll told it that it did not know."""
        await self.time_passes(self.every)
        self.polls += 1
        shown = await listed(self.box)
        assert len(shown) <= 50
        if self.loses and self.polls % self.loses == 0:
            return []  # the answer did not arrive
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
    """Delegate, end in random order, poll until nothing is new; the words that were to be read."""
    dice, source = random.Random(seed), poller.box
    target = await working(platform)
    open_ = [await delegated(source, target) for _ in range(count)]
    dice.shuffle(open_)
    ended: dict[str, str] = {}
    while open_:
        for _ in range(min(len(open_), dice.randint(0, most))):
            one, state = open_.pop(), dice.choice(ENDS)
            await become(platform, one, state)
            ended[one] = WORDS[state]
        if read_by_operator:
            await listed(source, headers=OPERATOR)
        await poller.poll()
        assert poller.seen.items() <= ended.items(), "it read an end before there was one, or another one"
    return ended


async def until_quiet(poller: Poller) -> None:
    """Poll for as long as what was lost may be shown again."""
    for _ in range(ROUNDS):
        await poller.poll()


@pytest.mark.parametrize("most", [5, 20, 180])
@pytest.mark.parametrize("read_by_operator", [False, True])
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


async def test_a_hundred_results_reach_a_poller_that_loses_one_answer(platform: Platform) -> None:
    poller = Poller(platform, await working(platform), every=timedelta(0))
    target = await working(platform)
    made = [await delegated(poller.box, target) for _ in range(100)]
    for delegation in reversed(made):  # the oldest work ends last: it is not among the newest rows
        await become(platform, delegation, "processed")
    for number in range(ROUNDS):
        poller.loses = 1 if number == 1 else 0
        await poller.poll()
    assert poller.seen.keys() == set(made), f"{100 - len(poller.seen)} results were never read"


@pytest.mark.parametrize("every", [3, 5, 10, 30])
async def test_a_poller_that_loses_every_third_answer_still_gets_each_result_when_they_come_slowly(
    platform: Platform, every: int
) -> None:
    poller = Poller(platform, await working(platform), every=timedelta(seconds=every), loses=3)
    ended = await work_that_ends_between_polls(platform, poller, count=60, most=4, seed=every)
    await until_quiet(poller)
    assert poller.seen == ended


@pytest.mark.parametrize(
    ("every", "most"),
    [
        *((every, most) for every in (3, 30) for most in (20, 60, 180)),
    ],
)
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
