"""All implementations of the ports, by the task queue that they run on.

The one place that knows them all; it opens nothing and reads no settings.
"""

from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from activities.aws.client import Aws
from activities.delegation.a2a import A2aClient
from activities.delegation.delivery import Delivery, DeliveryConfig
from activities.fleet.permits_and_watchdog import Fleet, FleetConfig
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
from workflows.workspace.messages import DELEGATIONS_TASK_QUEUE, EC2_TASK_QUEUE, TASK_QUEUE

Implementation = Callable[..., Coroutine[Any, Any, object]]
"""An activity; its request and result are those of its port, and differ from port to port."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ActivitiesConfig:
    """All that the activities are told by the worker's settings."""

    owner: str
    """The control plane's name, on the tags of everything that it makes."""
    boxes: BoxDefaults
    zone: Zone
    canary: CanaryConfig = field(default_factory=CanaryConfig)
    delivery: DeliveryConfig = field(default_factory=DeliveryConfig)
    patience: PollPolicy = field(default_factory=PollPolicy)
    heartbeat_stale: timedelta = timedelta(seconds=90)
    unavailable_offering_ttl: timedelta = timedelta(minutes=3)
    """Capacity comes back in minutes; until then, nobody's time is spent on asking."""
    fleet: FleetConfig = field(default_factory=FleetConfig)
    orphans: OrphanPolicy = field(default_factory=OrphanPolicy)
    find_divergence: FindDivergence
    """How a run's history is replayed, to see where it parts from what was recorded."""


def implementations(
    *, aws: Aws, pool: Pool, keys: ServerKeys, config: ActivitiesConfig
) -> dict[str, tuple[Implementation, ...]]:
    """The activities of each task queue; EC2's mutations are on the rate-limited one, and only they."""
    owner, boxes, patience = config.owner, config.boxes, config.patience
    generations = Generations(pool=pool, keys=keys, defaults=boxes, heartbeat_stale=config.heartbeat_stale)
    instances = Instances(aws=aws, pool=pool, owner=owner, patience=patience)
    eviction = Eviction(aws=aws, pool=pool, owner=owner)
    launching = Launching(
        aws=aws,
        pool=pool,
        keys=keys,
        owner=owner,
        defaults=boxes,
        unavailable_offering_ttl=config.unavailable_offering_ttl,
    )
    addresses = Addresses(aws=aws, pool=pool, owner=owner, zone=config.zone, patience=patience)
    fleet = Fleet(aws=aws, pool=pool, config=config.fleet)
    volumes = Volumes(aws=aws, pool=pool, owner=owner, patience=patience)
    snapshots = Snapshots(aws=aws, pool=pool, owner=owner)
    sweep = Orphans(aws=aws, pool=pool, owner=owner, zone=config.zone, policy=config.orphans)
    sender = A2aClient()
    delivery = Delivery(pool=pool, sender=sender, config=config.delivery)
    rolling = Rollouts(pool=pool, heartbeat_stale=config.heartbeat_stale, fleet_frozen=fleet.frozen)
    rescuing = Repair(find_divergence=config.find_divergence)
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
            fleet.request_fleet_permit,
            fleet.watch,
            sweep.find_orphan_instances,
            sweep.find_orphan_names,
            rolling.plan_rollout,
            rolling.start_members,
            rolling.watch_rollout,
            rescuing.find_stuck,
            rescuing.repair,
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
