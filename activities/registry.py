"""All activities, grouped by the task queue that they run on."""

from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from activities.aws.client import Aws
from activities.delegation.a2a import A2aClient
from activities.delegation.delivery import Delivery, DeliveryConfig
from activities.fleet.health import FleetConfig, FleetHealth
from activities.fleet.permits import Permits
from activities.fleet.watchdog import Watchdog
from activities.orphans.sweep import Orphans
from activities.repair.repair import FindDivergence, Repair
from activities.rollout.rollout import Rollouts
from activities.volume.snapshots import Snapshots
from activities.volume.volumes import Volumes
from activities.workspace.address import Addresses, Zone
from activities.workspace.box_spec import BoxDefaults
from activities.workspace.canary import Canary, CanaryConfig
from activities.workspace.eviction import Eviction
from activities.workspace.fence import Instances, PollPolicy
from activities.workspace.generations import Generations
from activities.workspace.launch import Launching
from activities.workspace.registration_check import RegistrationProbe
from activities.workspace.status import Records
from store.db.pool import Pool
from store.registration.credentials import ServerKeys
from workflows.orphans.rules import OrphanPolicy
from workflows.shared.names import DELEGATIONS_TASK_QUEUE, EC2_TASK_QUEUE, TASK_QUEUE

Implementation = Callable[..., Coroutine[Any, Any, object]]
"""An activity. The contracts in `workflows` define the types of its request and result."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ActivitiesConfig:
    """The worker's settings for activities."""

    owner: str
    """The control plane's ID: the owner tag of every resource that it creates."""
    boxes: BoxDefaults
    zone: Zone
    canary: CanaryConfig = field(default_factory=CanaryConfig)
    delivery: DeliveryConfig = field(default_factory=DeliveryConfig)
    poll_policy: PollPolicy = field(default_factory=PollPolicy)
    heartbeat_stale: timedelta = timedelta(seconds=90)
    unavailable_offering_ttl: timedelta = timedelta(minutes=3)
    """How long an instance type in a subnet is skipped after a capacity error."""
    fleet: FleetConfig = field(default_factory=FleetConfig)
    orphans: OrphanPolicy = field(default_factory=OrphanPolicy)
    find_divergence: FindDivergence
    """Replays the history of a workflow run and finds where the replay diverges from it."""


def implementations(
    *, aws: Aws, pool: Pool, keys: ServerKeys, config: ActivitiesConfig
) -> dict[str, tuple[Implementation, ...]]:
    """The activities of each task queue. Only calls that change EC2 are on the rate-limited queue."""
    owner, boxes, poll_policy = config.owner, config.boxes, config.poll_policy
    generations = Generations(pool=pool, keys=keys, defaults=boxes, heartbeat_stale=config.heartbeat_stale)
    instances = Instances(aws=aws, pool=pool, owner=owner, poll_policy=poll_policy)
    eviction = Eviction(aws=aws, pool=pool, owner=owner)
    launching = Launching(
        aws=aws,
        pool=pool,
        keys=keys,
        owner=owner,
        defaults=boxes,
        unavailable_offering_ttl=config.unavailable_offering_ttl,
    )
    addresses = Addresses(aws=aws, pool=pool, owner=owner, zone=config.zone, poll_policy=poll_policy)
    fleet = FleetHealth(aws=aws, pool=pool, policy=config.fleet.policy)
    volumes = Volumes(aws=aws, pool=pool, owner=owner, poll_policy=poll_policy)
    snapshots = Snapshots(aws=aws, pool=pool, owner=owner)
    sweep = Orphans(aws=aws, pool=pool, owner=owner, zone=config.zone, policy=config.orphans)
    sender = A2aClient()
    delivery = Delivery(pool=pool, sender=sender, config=config.delivery)
    rollouts = Rollouts(pool=pool, heartbeat_stale=config.heartbeat_stale, fleet_frozen=fleet.frozen)
    repair = Repair(find_divergence=config.find_divergence)
    return {
        TASK_QUEUE: (
            generations.enroll,
            generations.open_generation,
            generations.close_workspace,
            addresses.address,
            addresses.remove_address,
            Canary(pool=pool, sender=sender, config=config.canary).ask_canary,
            Records(pool=pool).record_status,
            RegistrationProbe(pool=pool, heartbeat_stale=config.heartbeat_stale).check_registration,
            Permits(pool=pool, health=fleet).request_fleet_permit,
            Watchdog(pool=pool, health=fleet, thresholds=config.fleet.thresholds).watch,
            sweep.find_orphan_instances,
            sweep.find_orphan_names,
            rollouts.plan_rollout,
            rollouts.start_members,
            rollouts.watch_rollout,
            repair.find_stuck,
            repair.repair,
        ),
        DELEGATIONS_TASK_QUEUE: (delivery.advance_delegation,),
        EC2_TASK_QUEUE: (
            instances.fence_instances,
            eviction.evict,
            launching.launch,
            volumes.detach_volume,
            volumes.attach_volume,
            volumes.delete_volume,
            snapshots.snapshot_volume,
            sweep.terminate_orphans,
        ),
    }
