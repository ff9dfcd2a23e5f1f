"""The fence: terminating the boxes before this one, and seeing that they are gone.

It never launches, and never touches an instance of a newer launch or of another owner. What is missing
from EC2's list is reported as missing; when that is proof is the lifecycle's to judge.
"""

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta

import structlog
from temporalio import activity

from activities.aws import instances
from activities.aws.client import Aws
from activities.aws.instances import Instance
from activities.aws.termination import terminate
from activities.shared import application_errors
from activities.shared.activity_context import activity_context
from store.db.pool import Pool, connection
from store.workspace import generations, launches
from store.workspace.launches import Launch
from workflows.workspace.contract import FenceInstances, FenceObserved, MissingInstance

log = structlog.get_logger()

INITIAL_PAUSE = 0.05
"""Doubled to the longest in half a second: four looks more for what takes EC2 a minute."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PollPolicy:
    """How long to watch what EC2 does, and how often to look."""

    termination: timedelta = timedelta(seconds=45)
    """Most boxes are gone within it; the activity may take a minute, and the lifecycle looks again."""
    running: timedelta = timedelta(seconds=60)
    """A launch takes 10 to 40 s from pending to running."""
    poll: timedelta = timedelta(milliseconds=700)
    """The longest pause between two looks."""

    def pauses(self) -> Iterator[float]:
        """Seconds to wait after each look: what is over at once is seen at once."""
        pause, longest = INITIAL_PAUSE, self.poll.total_seconds()
        while True:
            yield min(pause, longest)
            pause = min(2 * pause, longest)


@dataclass(frozen=True, slots=True, kw_only=True)
class FenceSnapshot:
    """One look at EC2 beside the record."""

    to_terminate: tuple[Instance, ...]
    """Alive, and to be terminated."""
    to_keep: tuple[Instance, ...]
    """Alive, and not ours to terminate: a human has to."""
    terminated: tuple[Instance, ...]
    """Also those of long ago, which EC2 lists for about an hour."""
    missing: tuple[Launch, ...]
    identified: tuple[tuple[Launch, Instance], ...]
    """Launches whose answer was lost, and the instance that was found under their tags."""


class Instances:
    """Needs EC2 and PostgreSQL."""

    def __init__(self, *, aws: Aws, pool: Pool, owner: str, patience: PollPolicy) -> None:
        self._aws = aws
        self._pool = pool
        self._owner = owner
        self._patience = patience

    @activity.defn(name="fence_instances")
    async def fence_instances(self, request: FenceInstances) -> FenceObserved:
        """Terminate, then poll for at most a minute. An empty listing confirms nothing."""
        async with activity_context(request.workspace_id, request.generation):
            await self._apply_declarations(request)
            clock = asyncio.get_running_loop().time
            deadline = clock() + self._patience.termination.total_seconds()
            asked: set[str] = set()
            terminated: set[str] = set()
            pauses = self._patience.pauses()
            while True:
                look = await self._observe(request)
                terminated.update(await self._record(request, look))
                await terminate(self._aws, [one for one in look.to_terminate if one.instance_id not in asked])
                asked.update(instance.instance_id for instance in look.to_terminate)
                if not look.to_terminate or clock() >= deadline:
                    terminated.update(asked & {instance.instance_id for instance in look.terminated})
                    return _observed(look, terminated)
                await asyncio.sleep(next(pauses))

    async def _apply_declarations(self, request: FenceInstances) -> None:
        async with connection(self._pool) as conn, conn.transaction():
            workspace = await generations.lock(conn, request.workspace_id)
            if workspace is not None and workspace.generation > request.generation:
                raise application_errors.superseded(request.generation)
            for keys, dead in ((request.declared_dead, True), (request.proven_gone, False)):
                if keys:
                    await launches.mark_terminated(conn, request.workspace_id, keys=keys, declared_dead=dead)
                    await log.ainfo("instance.gone", instances=keys, by="declaration" if dead else "proof")

    async def _observe(self, request: FenceInstances) -> FenceSnapshot:
        async with connection(self._pool) as conn:
            unsettled = await launches.list_unterminated(conn, request.workspace_id)
            dead = await launches.declared_dead(conn, request.workspace_id)
        tagged = await self._aws.call(
            instances.by_tags, self._aws.ec2, owner=self._owner, workspace_id=request.workspace_id
        )
        known = {instance.instance_id for instance in tagged}
        others = [one.instance_id for one in unsettled if one.instance_id and one.instance_id not in known]
        listed = tagged + await self._aws.call(instances.by_ids, self._aws.ec2, others)
        return classify(
            request,
            [instance for instance in listed if instance.instance_id not in dead],
            unsettled=unsettled,
            owner=self._owner,
        )

    async def _record(self, request: FenceInstances, look: FenceSnapshot) -> list[str]:
        """Store what was found and what is over; returns the recorded instances that are."""
        over = [instance.instance_id for instance in look.terminated]
        if not over and not look.identified:
            return []
        async with connection(self._pool) as conn, conn.transaction():
            for launch, instance in look.identified:
                await launches.identify(conn, launch, instance_id=instance.instance_id)
                await log.ainfo("launch.identified", launch=launch.key, instance=instance.instance_id)
            gone = await launches.mark_terminated(conn, request.workspace_id, keys=over)
        if gone:
            await log.ainfo("instance.terminated", instances=gone)
        return gone


def classify(
    request: FenceInstances, listed: Sequence[Instance], *, unsettled: Sequence[Launch], owner: str
) -> FenceSnapshot:
    """Sort what EC2 lists and what the record remembers: whose is it, and is it alive?"""
    recorded = {launch.instance_id: launch for launch in unsettled if launch.instance_id is not None}
    first_kept = _first_kept(request)
    fenced = [launch for launch in unsettled if launch.number < first_kept]
    found = {
        launch.number: instance
        for launch in fenced
        if launch.instance_id is None
        and (instance := instances.of_launch(listed, generation=launch.generation, attempt=launch.attempt))
    }
    kept = _kept(request, listed, recorded)
    doomed: list[Instance] = []
    spared: list[Instance] = []
    terminated: list[Instance] = []
    for instance in listed:
        launch = recorded.get(instance.instance_id)
        number = launch.number if launch is not None else instance.launch
        if instance.instance_id == kept or number > first_kept:
            # A generation that PostgreSQL doesn't know can't be fenced here, and must not be passed over.
            if number[0] > request.generation and not instance.terminated:
                spared.append(instance)
        elif instance.terminated:
            terminated.append(instance)
        elif instance.owner not in (owner, None):
            spared.append(instance)
        else:
            doomed.append(instance)
    described = {instance.instance_id for instance in listed}
    return FenceSnapshot(
        to_terminate=tuple(doomed),
        to_keep=tuple(spared),
        terminated=tuple(terminated),
        missing=tuple(
            launch for launch in fenced if launch.instance_id not in described and launch.number not in found
        ),
        identified=tuple((launch, found[launch.number]) for launch in fenced if launch.number in found),
    )


def _first_kept(request: FenceInstances) -> tuple[int, int]:
    """Older launches go. This one stays, with one instance; newer ones are a newer request's."""
    if request.keep_attempt is None:
        return request.generation + 1, 0  # attempts begin at 1: nothing has this number
    return request.generation, request.keep_attempt


def _kept(request: FenceInstances, listed: Sequence[Instance], recorded: dict[str, Launch]) -> str | None:
    """The one instance of the kept launch: the recorded one, else the one that a launch would adopt."""
    if request.keep_attempt is None:
        return None
    for instance_id, launch in recorded.items():
        if launch.number == (request.generation, request.keep_attempt):
            return instance_id
    adoptable = instances.of_launch(listed, generation=request.generation, attempt=request.keep_attempt)
    return adoptable.instance_id if adoptable is not None else None


def _observed(look: FenceSnapshot, terminated: set[str]) -> FenceObserved:
    return FenceObserved(
        terminated=tuple(sorted(terminated)),
        alive=tuple(sorted(instance.instance_id for instance in (*look.to_terminate, *look.to_keep))),
        missing=tuple(
            MissingInstance(key=launch.key, launched_at=launch.launched_at) for launch in look.missing
        ),
    )
