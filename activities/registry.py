"""All implementations of the ports, by the task queue that they run on.

The one place that knows them all; it opens nothing and reads no settings.
"""

from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from activities.a2a import Sender
from activities.aws import Aws
from activities.canary import Canary, CanaryConfig
from activities.delivery import Delivery, DeliveryConfig
from activities.dns import Addresses, Zone
from activities.eviction import Eviction
from activities.fleet import Fleet, FleetConfig
from activities.generations import Generations
from activities.inquiries import Inquiries
from activities.instances import Instances, Patience
from activities.launching import Launching
from activities.orphans import Orphans
from activities.records import Records
from activities.rescue import Parting, Rescuing
from activities.rolling import Rolling
from activities.snapshots import Snapshots
from activities.specs import BoxDefaults
from activities.volumes import Volumes
from store.credentials import ServerKeys
from store.pool import Pool
from workflows.messages import DELEGATIONS_TASK_QUEUE, EC2_TASK_QUEUE, TASK_QUEUE
from workflows.orphans import OrphanPolicy

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
    patience: Patience = field(default_factory=Patience)
    heartbeat_stale: timedelta = timedelta(seconds=90)
    offerings_bad_for: timedelta = timedelta(minutes=3)
    """Capacity comes back in minutes; until then, nobody's time is spent on asking."""
    fleet: FleetConfig = field(default_factory=FleetConfig)
    orphans: OrphanPolicy = field(default_factory=OrphanPolicy)
    parting: Parting
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
        offerings_bad_for=config.offerings_bad_for,
    )
    addresses = Addresses(aws=aws, pool=pool, owner=owner, zone=config.zone, patience=patience)
    fleet = Fleet(aws=aws, pool=pool, config=config.fleet)
    volumes = Volumes(aws=aws, pool=pool, owner=owner, patience=patience)
    snapshots = Snapshots(aws=aws, pool=pool, owner=owner)
    sweep = Orphans(aws=aws, pool=pool, owner=owner, zone=config.zone, policy=config.orphans)
    sender = Sender()
    delivery = Delivery(pool=pool, sender=sender, config=config.delivery)
    rolling = Rolling(pool=pool, heartbeat_stale=config.heartbeat_stale, held=fleet.frozen)
    rescuing = Rescuing(parting=config.parting)
    return {
        TASK_QUEUE: (
            generations.enroll,
            generations.open_generation,
            generations.close_workspace,
            addresses.address,
            addresses.remove_address,
            Canary(pool=pool, sender=sender, config=config.canary).ask_canary,
            Records(pool=pool).record_status,
            Inquiries(pool=pool, heartbeat_stale=config.heartbeat_stale).inquire,
            fleet.consult_fleet,
            fleet.watch,
            sweep.find_orphan_instances,
            sweep.find_orphan_names,
            rolling.plan_roll,
            rolling.take_turns,
            rolling.watch_roll,
            rescuing.find_stuck,
            rescuing.rescue,
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
            sweep.end_orphans,
        ),
    }
