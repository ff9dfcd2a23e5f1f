"""Rollouts in the database: the plan, the image, and the survey of all members."""

from dataclasses import dataclass

import pytest
from temporalio.testing import ActivityEnvironment

from activities.fleet.health import FleetHealth
from activities.rollout.rollout import Rollouts
from activities.workspace import box_spec
from store.fleet import recreate_permits
from store.rollout import rollouts
from tests.activities.world import World
from workflows.fleet.rules import decide
from workflows.rollout import contract as rollout_contract
from workflows.rollout.rules import Member, Outcome, Rollout, RolloutState
from workflows.workspace import contract as workspace_contract
from workflows.workspace.enums import Intent
from workflows.workspace.messages import WorkspaceSpec

pytestmark = pytest.mark.anyio

OLD, NEW, NEWER = "ami-old", "ami-new", "ami-newer"


@dataclass(frozen=True, kw_only=True)
class Planned:
    world: World
    rollout_id: str

    async def gives(self, image_id: str) -> bool:
        async with self.world.pool.connection() as conn:
            return await rollouts.set_image(
                conn, self.world.workspace_id, rollout_id=self.rollout_id, image_id=image_id
            )


async def planned(world: World, name: str) -> Planned:
    roll = f"{name}-of-{world.workspace_id}"
    await world.run(rollout_contract.plan_rollout, plan(world, roll))
    return Planned(world=world, rollout_id=roll)


def plan(world: World, rollout_id: str, *workspaces: str) -> rollout_contract.PlanRollout:
    return rollout_contract.PlanRollout(
        rollout_id=rollout_id,
        requested_by="admin:alice",
        reason="",
        image_id=NEW,
        query="",
        workspaces=workspaces or (world.workspace_id,),
    )


async def next_image(world: World, *, after: int) -> object:
    """The image of the generation that is opened after that one."""
    await world.run(
        workspace_contract.open_generation,
        workspace_contract.OpenGeneration(workspace_id=world.workspace_id, after=after),
    )
    [row] = await world.rows(
        "SELECT spec FROM generations WHERE workspace_id = %(workspace_id)s AND generation = %(number)s",
        number=after + 1,
    )
    return box_spec.load(row["spec"]).image_id  # type: ignore[arg-type]


async def test_all_later_generations_have_the_image_of_the_rollout(world: World) -> None:
    await world.opened(spec=WorkspaceSpec(image_id=OLD))
    assert await (await planned(world, "roll")).gives(NEW)
    assert [await next_image(world, after=number) for number in (1, 2)] == [NEW, NEW]


async def test_enrolling_again_does_not_bring_the_old_image_back(world: World) -> None:
    await world.opened(spec=WorkspaceSpec(image_id=OLD))
    await (await planned(world, "roll")).gives(NEW)
    for spec in (
        WorkspaceSpec(image_id=OLD),
        WorkspaceSpec(),
        WorkspaceSpec(register_deadline_seconds=5),
        WorkspaceSpec(register_deadline_seconds=6),
    ):
        await world.enrolled(spec)
    assert await next_image(world, after=1) == NEW


async def test_a_spec_that_changes_the_image_takes_precedence(world: World) -> None:
    await world.opened(spec=WorkspaceSpec(image_id=OLD))
    await (await planned(world, "roll")).gives(NEW)
    await world.enrolled(WorkspaceSpec(image_id=NEWER))
    assert await next_image(world, after=1) == NEWER


async def test_a_late_attempt_of_an_earlier_rollout_does_not_reset_the_image_of_a_later_one(
    world: World,
) -> None:
    await world.opened()
    earlier, later = await planned(world, "earlier"), await planned(world, "later")
    assert await earlier.gives(NEW)
    assert await later.gives(NEWER)
    assert not await earlier.gives(NEW)
    assert await next_image(world, after=1) == NEWER


async def test_a_plan_is_written_once_with_all_its_members(world: World) -> None:
    await world.enrolled()
    first = await world.run(rollout_contract.plan_rollout, plan(world, f"plan-{world.workspace_id}"))
    assert first.workspaces == (world.workspace_id,)
    again = plan(world, f"plan-{world.workspace_id}", "ws-of-nobody")
    assert (
        await world.run(rollout_contract.plan_rollout, again) == first
    )  # the second attempt finds the first one's
    error = await world.fails(
        rollout_contract.plan_rollout, plan(world, "another", world.workspace_id, "ws-of-nobody")
    )
    assert (error.type, error.non_retryable) == ("unknown_workspaces", True)
    assert "ws-of-nobody" in error.message


async def online(world: World) -> None:
    await world.rows("UPDATE workspaces SET phase = 'online' WHERE workspace_id = %(workspace_id)s")
    await world.rows("UPDATE heartbeats SET last_heartbeat_at = now() WHERE workspace_id = %(workspace_id)s")


@pytest.mark.parametrize(
    ("broken", "down"),
    [
        ("UPDATE heartbeats SET active_tasks = 1", False),
        ("UPDATE heartbeats SET last_heartbeat_at = now() - interval '91 s'", True),
        ("UPDATE heartbeats SET stale_since = now()", True),
        ("UPDATE heartbeats SET credential_lost_at = now()", True),
        ("UPDATE generations SET agent_unresponsive_since = now()", True),
        ("UPDATE generations SET superseded_at = now()", True),
        ("UPDATE workspaces SET phase = 'degraded'", True),
        ("UPDATE workspaces SET generation = 2", True),  # decided, but not opened
        ("UPDATE workspaces SET phase = 'stopped', intent = 'stop'", False),  # not expected to run
        ("UPDATE workspaces SET phase = 'deleted', deleted_at = now()", False),
    ],
)
async def test_a_member_is_down_unless_all_evidence_is_that_it_is_online(
    world: World, broken: str, down: bool
) -> None:
    await world.opened()
    await online(world)
    it = await planned(world, "roll")
    await world.rows(f"{broken} WHERE workspace_id = %(workspace_id)s")
    survey = await world.run(rollout_contract.watch_rollout, watch(it.rollout_id))
    assert (world.workspace_id in survey.down) == down


def watch(
    rollout_id: str, *in_flight: Member, seconds: float = 0, wants_capacity: bool = False
) -> rollout_contract.WatchRollout:
    standing = Rollout(members=in_flight, allowed=1, max_failures=1, state=RolloutState.ROLLING)
    return rollout_contract.WatchRollout(
        rollout_id=rollout_id, snapshot=standing, wants_capacity=wants_capacity, seconds=seconds
    )


async def test_a_watch_returns_when_a_member_is_done_or_another_may_start(world: World) -> None:
    await world.opened()
    await online(world)
    it = await planned(world, "roll")
    member = Member(workspace_id=world.workspace_id, outcome=Outcome.IN_FLIGHT, generation=1)
    survey = await world.run(rollout_contract.watch_rollout, watch(it.rollout_id, member, seconds=60))
    [seen] = survey.seen
    assert (seen.generation, seen.available, seen.intent) == (1, True, Intent.RUN)
    assert seen.image_id == world.config.boxes.image_id
    assert (
        await world.run(rollout_contract.watch_rollout, watch(it.rollout_id, seconds=60, wants_capacity=True))
    ).down == set()


async def test_a_frozen_fleet_is_reported_with_its_reason(world: World) -> None:
    await world.opened()
    it = await planned(world, "roll")

    async def frozen() -> str | None:
        return "half of it is stale"

    rolling = Rollouts(pool=world.pool, heartbeat_stale=world.config.heartbeat_stale, fleet_frozen=frozen)
    survey = await ActivityEnvironment().run(
        rolling.watch_rollout, watch(it.rollout_id, seconds=60, wants_capacity=True)
    )
    assert survey.blocked_reason == "half of it is stale"


async def test_what_freezes_automatic_recreates_pauses_a_rollout(world: World) -> None:
    fleet = FleetHealth(aws=world.aws, pool=world.pool, policy=world.config.fleet.policy)
    async with world.pool.connection() as conn:
        counts = await recreate_permits.read_counts(conn)
    assert await fleet.frozen() == decide(counts, world.config.fleet.policy).frozen
    world.endpoint.inject("DescribeInstances", "error", code="UnauthorizedOperation", status=403)
    fleet = FleetHealth(aws=world.aws, pool=world.pool, policy=world.config.fleet.policy)
    assert await fleet.frozen() == "EC2 cannot be read: UnauthorizedOperation"
