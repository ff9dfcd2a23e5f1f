"""The composition root: opens resources and builds workers, clients and activities from settings.

All other packages receive their dependencies as arguments.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import partial

from botocore.exceptions import BotoCoreError
from temporalio.client import Client
from temporalio.envconfig import ClientConfig
from temporalio.runtime import Runtime
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

from activities.aws.client import Aws
from activities.delegation.delivery import DeliveryConfig
from activities.fleet.health import FleetConfig
from activities.registry import ActivitiesConfig, Implementation, implementations
from activities.workspace.address import Zone
from activities.workspace.box_spec import BoxDefaults
from activities.workspace.canary import CanaryConfig
from client.plugin import OneboxPlugin
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
from workflows.shared.encryption import Encryption
from workflows.shared.names import DELEGATIONS_TASK_QUEUE, EC2_TASK_QUEUE, TASK_QUEUE
from workflows.workspace.workflow import WorkspaceWorkflow

DEFAULT_TARGET = "127.0.0.1:7233"
"""The default address of a Temporal server."""

MAX_CONCURRENT_WORKFLOW_TASKS = 16
"""Per worker. A process runs workflow tasks one at a time, and each task times out ten seconds after
dispatch. With a higher limit, most tasks of a hundred uncached runs would time out in the queue of this
process."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Resources:
    """The open resources of a worker process, and the activities built from them."""

    settings: WorkerSettings
    pool: Pool
    activities: dict[str, tuple[Implementation, ...]]


async def connect(runtime: Runtime | None = None) -> Client:
    """A client configured by Temporal's TEMPORAL_* variables and profiles, and by PAYLOAD_KEYS.

    Raises `InvalidSettings`; if the server is unavailable, `RuntimeError` or `RPCError`.
    """
    keys = load(PayloadSettings).payload_key_ring
    try:
        config = ClientConfig.load_client_connect_config()
    except (RuntimeError, OSError, ValueError) as error:
        # A configuration error does not heal; callers retry the other exceptions.
        raise InvalidSettings(f"TEMPORAL_…: {error}") from None
    config.setdefault("target_host", DEFAULT_TARGET)
    return await Client.connect(
        **config,
        plugins=[OneboxPlugin(keys)],
        runtime=runtime,
    )


@asynccontextmanager
async def open_resources(settings: WorkerSettings) -> AsyncIterator[Resources]:
    """Open the database pool and the AWS clients during the block. Raises `InvalidSettings`."""
    async with open_pool(
        settings.database_url.get_secret_value(),
        minimum=1,
        maximum=settings.database_pool_size,
        application_name="onebox-worker",
    ) as pool:
        try:
            # The workers of two task queues call AWS; each activity needs a thread of its own.
            aws = Aws(threads=2 * settings.max_concurrent_activities, region=settings.aws_region)
        except BotoCoreError as error:
            raise InvalidSettings(f"AWS: {error} (AWS_REGION, or AWS's own configuration files)") from None
        try:
            yield Resources(settings=settings, pool=pool, activities=_activities(settings, aws, pool))
        finally:
            aws.close()


def workspace_worker(client: Client, resources: Resources) -> Worker:
    """The worker of all workflows except delegations, and of all activities except EC2 mutations."""
    workflows = [WorkspaceWorkflow, WatchdogWorkflow, SweepWorkflow, RepairWorkflow, RolloutWorkflow]
    return _worker(client, resources, TASK_QUEUE, workflows=workflows)


def delegations_worker(client: Client, resources: Resources) -> Worker:
    """The worker of delegation workflows and deliveries."""
    return _worker(client, resources, DELEGATIONS_TASK_QUEUE, workflows=[DelegationWorkflow])


def ec2_worker(client: Client, resources: Resources) -> Worker:
    """The worker of EC2 mutations; the server limits their rate across all workers."""
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
        # The sandbox imports all modules again for each run, which takes longer than the rest of a task.
        # A test checks the source text for what the sandbox would report at run time.
        workflow_runner=UnsandboxedWorkflowRunner(),
        max_concurrent_workflow_tasks=MAX_CONCURRENT_WORKFLOW_TASKS,
        activities=resources.activities[task_queue],
        interceptors=[ObservabilityInterceptor()],
        max_concurrent_activities=resources.settings.max_concurrent_activities,
        max_task_queue_activities_per_second=per_second,
        # An eagerly dispatched activity would bypass the rate limit.
        disable_eager_activity_execution=True,
        graceful_shutdown_timeout=timedelta(seconds=resources.settings.graceful_shutdown_seconds),
    )
    if workflows:
        activation_order.apply_jobs_before_workflow_code(worker)
    return worker


def box_defaults(settings: WorkerSettings) -> BoxDefaults:
    """The configuration of boxes; a workspace's spec overrides parts of it."""
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
