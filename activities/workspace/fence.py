"""Fencing: terminates the boxes of earlier launches and observes that they are terminated.

Never touches an instance of a newer launch or of another owner. Instances that EC2 does not list are reported
as missing; the workflow decides when that proves that they are gone.
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
"""Seconds. Doubles up to `PollPolicy.poll`: fast terminations are seen at once, at the cost of four polls."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PollPolicy:
    """How long an attempt polls EC2, and how often."""

    termination: timedelta = timedelta(seconds=45)
    """Most boxes terminate within it. The activity's timeout is a minute, and the workflow repeats it."""
    running: timedelta = timedelta(seconds=60)
    """An instance takes 10 to 40 s from pending to running."""
    poll: timedelta = timedelta(milliseconds=700)
    """The longest pause between two polls."""

    def pauses(self) -> Iterator[float]:
        """Seconds to wait after each poll."""
        pause, longest = INITIAL_PAUSE, self.poll.total_seconds()
        while True:
            yield min(pause, longest)
            pause = min(2 * pause, longest)


@dataclass(frozen=True, slots=True, kw_only=True)
class FenceSnapshot:
    """The instances that EC2 lists, compared with the recorded launches."""

    to_terminate: tuple[Instance, ...]
    """Alive, and to be terminated."""
    to_keep: tuple[Instance, ...]
    """Alive, and owned by others: an operator has to terminate them."""
    terminated: tuple[Instance, ...]
    """EC2 lists an instance for about an hour after its termination."""
    missing: tuple[Launch, ...]
    identified: tuple[tuple[Launch, Instance], ...]
    """Launches whose response was lost, with the instance that has their tags."""


class Instances:
    """Needs EC2 and PostgreSQL."""

    def __init__(self, *, aws: Aws, pool: Pool, owner: str, poll_policy: PollPolicy) -> None:
        self._aws = aws
        self._pool = pool
        self._owner = owner
        self._poll_policy = poll_policy

    @activity.defn(name="fence_instances")
    async def fence_instances(self, request: FenceInstances) -> FenceObserved:
        """Terminate, then poll for at most a minute. An empty listing confirms nothing."""
        async with activity_context(request.workspace_id, request.generation):
            await self._apply_declarations(request)
            clock = asyncio.get_running_loop().time
            deadline = clock() + self._poll_policy.termination.total_seconds()
            requested: set[str] = set()
            terminated: set[str] = set()
            pauses = self._poll_policy.pauses()
            while True:
                snapshot = await self._observe(request)
                terminated.update(await self._record(request, snapshot))
                await terminate(
                    self._aws, [one for one in snapshot.to_terminate if one.instance_id not in requested]
                )
                requested.update(instance.instance_id for instance in snapshot.to_terminate)
                if not snapshot.to_terminate or clock() >= deadline:
                    terminated.update(requested & {instance.instance_id for instance in snapshot.terminated})
                    return _result(snapshot, terminated)
                await asyncio.sleep(next(pauses))

    async def _apply_declarations(self, request: FenceInstances) -> None:
        async with connection(self._pool) as conn, conn.transaction():
            workspace = await generations.lock(conn, request.workspace_id)
            if workspace is not None and workspace.generation > request.generation:
                raise application_errors.superseded(request.generation)
            for keys, dead in ((request.declared_dead, True), (request.proven_gone, False)):
                if keys:
                    await launches.mark_terminated(conn, request.workspace_id, keys=keys, declared_dead=dead)
                    await log.ainfo(
                        "instance.confirmed_terminated", instances=keys, by="operator" if dead else "proof"
                    )

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

    async def _record(self, request: FenceInstances, snapshot: FenceSnapshot) -> list[str]:
        """Record identified and terminated instances. Returns the recorded instances that newly ended."""
        ended = [instance.instance_id for instance in snapshot.terminated]
        if not ended and not snapshot.identified:
            return []
        async with connection(self._pool) as conn, conn.transaction():
            for launch, instance in snapshot.identified:
                await launches.identify(conn, launch, instance_id=instance.instance_id)
                await log.ainfo("launch.identified", launch=launch.key, instance=instance.instance_id)
            gone = await launches.mark_terminated(conn, request.workspace_id, keys=ended)
        if gone:
            await log.ainfo("instance.terminated", instances=gone)
        return gone


def classify(
    request: FenceInstances, listed: Sequence[Instance], *, unsettled: Sequence[Launch], owner: str
) -> FenceSnapshot:
    """Classify the listed instances and the recorded launches by owner, launch and state."""
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
    to_terminate: list[Instance] = []
    to_keep: list[Instance] = []
    terminated: list[Instance] = []
    for instance in listed:
        launch = recorded.get(instance.instance_id)
        number = launch.number if launch is not None else instance.launch
        if instance.instance_id == kept or number > first_kept:
            # PostgreSQL does not know this newer generation. It is not fenced here, but must be reported.
            if number[0] > request.generation and not instance.terminated:
                to_keep.append(instance)
        elif instance.terminated:
            terminated.append(instance)
        elif instance.owner not in (owner, None):
            to_keep.append(instance)
        else:
            to_terminate.append(instance)
    described = {instance.instance_id for instance in listed}
    return FenceSnapshot(
        to_terminate=tuple(to_terminate),
        to_keep=tuple(to_keep),
        terminated=tuple(terminated),
        missing=tuple(
            launch for launch in fenced if launch.instance_id not in described and launch.number not in found
        ),
        identified=tuple((launch, found[launch.number]) for launch in fenced if launch.number in found),
    )


def _first_kept(request: FenceInstances) -> tuple[int, int]:
    """The launch to keep. Older launches are terminated; newer ones belong to a newer request."""
    if request.keep_attempt is None:
        return request.generation + 1, 0  # attempts begin at 1: no launch has this number
    return request.generation, request.keep_attempt


def _kept(request: FenceInstances, listed: Sequence[Instance], recorded: dict[str, Launch]) -> str | None:
    """The instance of the kept launch: the recorded one, else the one that `launch` would adopt."""
    if request.keep_attempt is None:
        return None
    for instance_id, launch in recorded.items():
        if launch.number == (request.generation, request.keep_attempt):
            return instance_id
    adoptable = instances.of_launch(listed, generation=request.generation, attempt=request.keep_attempt)
    return adoptable.instance_id if adoptable is not None else None


def _result(snapshot: FenceSnapshot, terminated: set[str]) -> FenceObserved:
    return FenceObserved(
        terminated=tuple(sorted(terminated)),
        alive=tuple(sorted(instance.instance_id for instance in (*snapshot.to_terminate, *snapshot.to_keep))),
        missing=tuple(
            MissingInstance(key=launch.key, launched_at=launch.launched_at) for launch in snapshot.missing
        ),
    )
