"""The composition root: the one place where resources are opened and parts are put together.

Every part gets what it needs as arguments; only this package reads settings.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import partial

from botocore.exceptions import BotoCoreError
from temporalio.client import Client
from temporalio.common import HeaderCodecBehavior
from temporalio.envconfig import ClientConfig
from temporalio.runtime import Runtime
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

from activities.aws import Aws
from activities.canary import CanaryConfig
from activities.delivery import DeliveryConfig
from activities.dns import Zone
from activities.fleet import FleetConfig
from activities.registry import ActivitiesConfig, Implementation, implementations
from activities.specs import BoxDefaults
from store.pool import Pool, open_pool
from workers import ordering, parting, versioning
from workers.observing import Observing
from workers.settings import InvalidSettings, PayloadSettings, load
from workers.worker_settings import WorkerSettings
from workflows.delegation import DelegationWorkflow
from workflows.encryption import Encryption, converter
from workflows.fleet_roll import FleetWorkflow
from workflows.messages import DELEGATIONS_TASK_QUEUE, EC2_TASK_QUEUE, TASK_QUEUE
from workflows.rescue import RescueWorkflow
from workflows.sweep import SweepWorkflow
from workflows.watchdog import WatchdogWorkflow
from workflows.workspace import WorkspaceWorkflow

DEFAULT_TARGET = "127.0.0.1:7233"
"""Where a Temporal server listens by default."""

WORKFLOW_TASKS_AT_ONCE = 16
"""Of one worker. A process works on one after the other, and each has ten seconds from when it is handed out:
of a hundred runs that a worker meets cold, most could time out while they wait for it, again and again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What a worker process holds open."""

    settings: WorkerSettings
    pool: Pool
    activities: dict[str, tuple[Implementation, ...]]


async def connect(runtime: Runtime | None = None) -> Client:
    """A client by Temporal's standard TEMPORAL_* variables and profiles, and by PAYLOAD_KEYS.

    Raises `InvalidSettings`.
    """
    keys = load(PayloadSettings).payload_key_ring
    try:
        config = ClientConfig.load_client_connect_config()
    except (RuntimeError, OSError, ValueError) as error:
        # Nothing that passes by itself: to try again would hide it among servers that are away.
        raise InvalidSettings(f"TEMPORAL_…: {error}") from None
    config.setdefault("target_host", DEFAULT_TARGET)
    return await Client.connect(
        **config,
        data_converter=converter(keys),
        header_codec_behavior=HeaderCodecBehavior.CODEC,  # a request's ID is its sender's text
        runtime=runtime,
    )


@asynccontextmanager
async def opened(settings: WorkerSettings) -> AsyncIterator[Parts]:
    """Open database and AWS for the block."""
    async with open_pool(
        settings.database_url.get_secret_value(),
        minimum=1,
        maximum=settings.database_pool_size,
        application_name="onebox-worker",
    ) as pool:
        try:
            # Two workers share them, one for each task queue: no activity ever waits for a thread.
            aws = Aws(threads=2 * settings.max_concurrent_activities, region=settings.aws_region)
        except BotoCoreError as error:
            raise InvalidSettings(f"AWS: {error} (AWS_REGION, or AWS's own configuration files)") from None
        try:
            yield Parts(settings=settings, pool=pool, activities=_activities(settings, aws, pool))
        finally:
            aws.close()


def workspace_worker(client: Client, parts: Parts) -> Worker:
    """Workflows, and all activities but EC2's mutations."""
    workflows = [WorkspaceWorkflow, WatchdogWorkflow, SweepWorkflow, RescueWorkflow, FleetWorkflow]
    return _worker(client, parts, TASK_QUEUE, workflows=workflows)


def delegations_worker(client: Client, parts: Parts) -> Worker:
    """Delegations: their workflows, and their deliveries."""
    return _worker(client, parts, DELEGATIONS_TASK_QUEUE, workflows=[DelegationWorkflow])


def ec2_worker(client: Client, parts: Parts) -> Worker:
    """EC2's mutations: the server hands out so many a second to all workers together."""
    return _worker(
        client, parts, EC2_TASK_QUEUE, workflows=[], per_second=parts.settings.ec2_mutations_per_second
    )


def _worker(
    client: Client,
    parts: Parts,
    task_queue: str,
    *,
    workflows: Sequence[type],
    per_second: float | None = None,
) -> Worker:
    version = parts.settings.deployment_version
    worker = Worker(
        client,
        deployment_config=None if version is None else versioning.config(version),
        task_queue=task_queue,
        workflows=workflows,
        # The sandbox would load our modules anew for each run that it meets, which takes longer than all else
        # that a task does. What it would see at run time, a test of the code's own text sees at once.
        workflow_runner=UnsandboxedWorkflowRunner(),
        max_concurrent_workflow_tasks=WORKFLOW_TASKS_AT_ONCE,
        activities=parts.activities[task_queue],
        interceptors=[Observing()],
        max_concurrent_activities=parts.settings.max_concurrent_activities,
        max_task_queue_activities_per_second=per_second,
        # An eagerly dispatched activity would pass the rate limit by.
        disable_eager_activity_execution=True,
        graceful_shutdown_timeout=timedelta(seconds=parts.settings.graceful_shutdown_seconds),
    )
    if workflows:
        ordering.take_all_first(worker)
    return worker


def box_defaults(settings: WorkerSettings) -> BoxDefaults:
    """What boxes are made of, where a workspace's spec says nothing else."""
    return BoxDefaults(
        image_id=settings.box_image_id,
        instance_types=settings.box_instance_types,
        subnet_ids=settings.box_subnet_ids,
        security_group_ids=settings.box_security_group_ids,
        register_api_url=settings.register_api_url,
        runtime_command=settings.box_runtime_command,
        runtime_user=settings.box_runtime_user,
        runtime_port=settings.box_runtime_port,
        configs_dir=settings.box_configs_dir,
        data_dir=settings.box_data_dir,
        timings=settings.timings,
    )


def _activities(settings: WorkerSettings, aws: Aws, pool: Pool) -> dict[str, tuple[Implementation, ...]]:
    config = ActivitiesConfig(
        owner=settings.onebox_owner,
        boxes=box_defaults(settings),
        zone=Zone(
            zone_id=settings.dns_zone_id, name=settings.dns_zone_name, ttl_seconds=settings.dns_ttl_seconds
        ),
        canary=CanaryConfig(allow_loopback=settings.allow_loopback_targets),
        delivery=DeliveryConfig(
            deadlines=settings.delegation_deadlines, allow_loopback=settings.allow_loopback_targets
        ),
        heartbeat_stale=settings.heartbeat_stale,
        offerings_bad_for=timedelta(seconds=settings.offering_bad_seconds),
        fleet=FleetConfig(policy=settings.fleet_policy, patience=settings.watch_patience),
        orphans=settings.orphan_policy,
        parting=partial(parting.parting, codec=Encryption(settings.payload_key_ring)),
    )
    return implementations(aws=aws, pool=pool, keys=settings.keys, config=config)
