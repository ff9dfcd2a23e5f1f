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

from activities.aws.client import Aws
from activities.delegation.delivery import DeliveryConfig
from activities.fleet.permits_and_watchdog import FleetConfig
from activities.registry import ActivitiesConfig, Implementation, implementations
from activities.workspace.address import Zone
from activities.workspace.box_spec import BoxDefaults
from activities.workspace.canary import CanaryConfig
from store.db.pool import Pool, open_pool
from workers.history import divergence
from workers.settings.common import InvalidSettings, PayloadSettings, load
from workers.settings.worker import WorkerSettings
from workers.telemetry.interceptors import ObservabilityInterceptor
from workers.temporal import activation_order, versioning
from workflows.delegation.workflow import DelegationWorkflow
from workflows.fleet.watchdog import WatchdogWorkflow
from workflows.orphans.workflow import SweepWorkflow
from workflows.repair.workflow import RepairWorkflow
from workflows.rollout.workflow import RolloutWorkflow
from workflows.shared.encryption import Encryption, converter
from workflows.workspace.messages import DELEGATIONS_TASK_QUEUE, EC2_TASK_QUEUE, TASK_QUEUE
from workflows.workspace.workflow import WorkspaceWorkflow

DEFAULT_TARGET = "127.0.0.1:7233"
"""Where a Temporal server listens by default."""

MAX_CONCURRENT_WORKFLOW_TASKS = 16
"""Of one worker. A process works on one after the other, and each has ten seconds from when it is handed out:
of a hundred runs that a worker meets cold, most could time out while they wait for it, again and again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Resources:
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
async def open_resources(settings: WorkerSettings) -> AsyncIterator[Resources]:
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
            yield Resources(settings=settings, pool=pool, activities=_activities(settings, aws, pool))
        finally:
            aws.close()


def workspace_worker(client: Client, resources: Resources) -> Worker:
    """Workflows, and all activities but EC2's mutations."""
    workflows = [WorkspaceWorkflow, WatchdogWorkflow, SweepWorkflow, RepairWorkflow, RolloutWorkflow]
    return _worker(client, resources, TASK_QUEUE, workflows=workflows)


def delegations_worker(client: Client, resources: Resources) -> Worker:
    """Delegations: their workflows, and their deliveries."""
    return _worker(client, resources, DELEGATIONS_TASK_QUEUE, workflows=[DelegationWorkflow])


def ec2_worker(client: Client, resources: Resources) -> Worker:
    """EC2's mutations: the server hands out so many a second to all workers together."""
    return _worker(
        client,
        resources,
        EC2_TASK_QUEUE,
        workflows=[],
        per_second=resources.settings.ec2_mutations_per_second,
    )


def _worker(
    client: Client,
    resources: Resources,
    task_queue: str,
    *,
    workflows: Sequence[type],
    per_second: float | None = None,
) -> Worker:
    version = resources.settings.deployment_version
    worker = Worker(
        client,
        deployment_config=None if version is None else versioning.config(version),
        task_queue=task_queue,
        workflows=workflows,
        # The sandbox would load our modules anew for each run that it meets, which takes longer than all else
        # that a task does. What it would see at run time, a test of the code's own text sees at once.
        workflow_runner=UnsandboxedWorkflowRunner(),
        max_concurrent_workflow_tasks=MAX_CONCURRENT_WORKFLOW_TASKS,
        activities=resources.activities[task_queue],
        interceptors=[ObservabilityInterceptor()],
        max_concurrent_activities=resources.settings.max_concurrent_activities,
        max_task_queue_activities_per_second=per_second,
        # An eagerly dispatched activity would pass the rate limit by.
        disable_eager_activity_execution=True,
        graceful_shutdown_timeout=timedelta(seconds=resources.settings.graceful_shutdown_seconds),
    )
    if workflows:
        activation_order.apply_jobs_before_workflow_code(worker)
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
        owner=settings.control_plane_id,
        boxes=box_defaults(settings),
        zone=Zone(
            zone_id=settings.dns_zone_id, name=settings.dns_zone_name, ttl_seconds=settings.dns_ttl_seconds
        ),
        canary=CanaryConfig(allow_loopback=settings.allow_loopback_targets),
        delivery=DeliveryConfig(
            deadlines=settings.delegation_deadlines, allow_loopback=settings.allow_loopback_targets
        ),
        heartbeat_stale=settings.heartbeat_stale,
        unavailable_offering_ttl=timedelta(seconds=settings.unavailable_offering_ttl_seconds),
        fleet=FleetConfig(policy=settings.fleet_policy, thresholds=settings.watchdog_thresholds),
        orphans=settings.orphan_policy,
        find_divergence=partial(divergence.find_divergence, codec=Encryption(settings.payload_key_ring)),
    )
    return implementations(aws=aws, pool=pool, keys=settings.keys, config=config)
