"""Settings of the worker: AWS resources, timeouts and limits."""

from dataclasses import replace
from datetime import timedelta
from typing import Annotated, Self
from urllib.parse import urlsplit

from pydantic import AliasChoices, Field, field_validator, model_validator
from temporalio.common import WorkerDeploymentVersion

from store.delegation.agent_liveness import LivenessThresholds
from store.fleet.watchdog_queries import WatchdogThresholds
from workers.settings.common import CommaSeparated, FleetSettings, PayloadSettings, split_commas
from workers.settings.listen_address import ListenAddress, ListenIpAddress, require_distinct
from workflows.delegation.rules import Deadlines
from workflows.orphans.rules import OrphanPolicy
from workflows.workspace.enums import CanaryPolicy
from workflows.workspace.state import Timings

FINAL_AWS_CALLS = timedelta(seconds=20)
"""A cancelled activity ends when its AWS call ends, after at most 18 s."""


class WorkerSettings(FleetSettings, PayloadSettings):
    """Settings of the worker."""

    aws_region: Annotated[
        str | None, Field(validation_alias=AliasChoices("AWS_REGION", "AWS_DEFAULT_REGION"))
    ] = None
    """AWS region of the boxes. Unset: the region of AWS's configuration files."""
    control_plane_id: Annotated[str, Field(pattern="^[a-z0-9][a-z0-9-]{0,62}$")] = "onebox"
    """Name of this control plane, written to the tags of its instances and DNS records. Onebox changes only
    resources with this name."""
    register_api_url: Annotated[str, Field(max_length=500)]
    """URL at which boxes reach the register API."""
    dns_zone_id: str
    """ID of the Route 53 hosted zone for workspace DNS names."""
    dns_zone_name: Annotated[str, Field(pattern=r"^[a-z0-9.-]+$")]
    """Domain name of that zone. The DNS name of a workspace is its ID in this domain."""
    dns_ttl_seconds: Annotated[int, Field(ge=0, le=86_400)] = 30
    """TTL of the workspaces' DNS records."""
    box_image_id: str
    """AMI of the boxes. A workspace's spec may name another."""
    box_instance_types: CommaSeparated = ("t3.small",)
    """EC2 instance types of boxes, in order of preference."""
    box_subnet_ids: CommaSeparated = ()
    """Subnets of boxes, in order of preference. Empty: the subnets of the default VPC."""
    box_security_group_ids: CommaSeparated = ()
    """Security groups of boxes. Empty: the default group of the VPC."""
    box_runtime_command: str
    """Command that starts the agent runtime on a box, with shell quoting."""
    box_runtime_user: str = "agent"
    """Unix user that runs the runtime and owns its token file. Ignored unless the box script runs as root."""
    box_runtime_port: Annotated[int, Field(ge=1, le=65_535)] = 8000
    """Port at which the runtime receives messages."""
    box_configs_dir: str = "/configs"
    """Directory in which the runtime reads `.auth_token`."""
    unavailable_offering_ttl_seconds: Annotated[float, Field(ge=0)] = 180
    """How long an instance type in a subnet is skipped after a capacity error."""
    box_data_dir: Annotated[str, Field(pattern="^/")] = "/data"
    """Mount point of the workspace's data volume, if it has one. The runtime reads it from `DATA_DIR`."""
    ec2_mutations_per_second: Annotated[float, Field(gt=0)] = 2.0
    """Maximum rate of EC2 calls that change something, across all workers. EC2's own limit for RunInstances
    is about as high."""
    instance_deadline_seconds: Annotated[float, Field(gt=0)] = 600
    """How long a launched instance may stay pending in EC2 before another generation replaces it."""
    register_deadline_seconds: Annotated[float, Field(gt=0)] = 600
    """How long a running instance may take until its first heartbeat with a valid token."""
    fence_unconfirmed_seconds: Annotated[float, Field(gt=0)] = 600
    """How long before an unconfirmed termination is reported and `declare_dead` is accepted."""
    recreate_grace_seconds: Annotated[float, Field(ge=0)] = 120
    """How long after a box came online a recreate without `observed_generation` counts as stale."""
    canary: CanaryPolicy = CanaryPolicy.GENERATION
    """When the agent is probed with a canary task: `off`, `generation` (once per generation), or `idle` (also
    after 10 min without processed work)."""
    canary_deadline_seconds: Annotated[float, Field(gt=0)] = 300
    """How long an agent may take to answer a canary before the workspace becomes degraded."""
    delegation_ack_seconds: Annotated[float, Field(gt=0)] = 120
    """How long a delivered delegation may stay unacknowledged before the workspace becomes degraded."""
    delegation_progress_seconds: Annotated[float, Field(gt=0)] = 600
    """How long an acknowledged delegation may report no progress before it counts as stalled."""
    delegation_expire_seconds: Annotated[float, Field(gt=0)] = 21_600
    """How long after its creation an unfinished delegation expires."""
    not_processing_seconds: Annotated[float, Field(gt=0)] = 180
    """A box is recreated after its agent has processed no work for this long."""
    watchdog_interval_seconds: Annotated[float, Field(ge=1)] = 30
    """Interval between watchdog rounds."""
    stale_recreate_seconds: Annotated[float, Field(gt=0)] = 180
    """A box is recreated after this long without heartbeats, or without a valid token."""
    orphan_sweep_interval_seconds: Annotated[float, Field(ge=1, le=86_400)] = 120
    """Interval between sweeps for instances and DNS names that no generation owns."""
    orphan_min_age_seconds: Annotated[float, Field(ge=0)] = 300
    """Minimum age of an orphan before the sweep acts on it: a launch in progress looks the same."""
    orphan_max_actions_per_pass: Annotated[int, Field(ge=0, le=100)] = 5
    """Maximum number of orphans that are terminated, removed, or reported to their workflows in one sweep."""
    orphan_dry_run: bool = False
    """Report orphans in the log and in the sweep's result, and change nothing."""
    repair_interval_seconds: Annotated[float, Field(ge=1, le=86_400)] = 120
    """Interval between scans for workflows stuck on non-determinism errors. Each is reset to the last
    workflow task that replays."""
    schedule_check_interval_seconds: Annotated[float, Field(ge=1, le=3600)] = 60
    """Interval between checks of the schedules of watchdog, sweep and repair. A schedule that is missing, or
    that has other settings than the worker, is created or updated."""
    max_concurrent_activities: Annotated[int, Field(ge=1, le=5000)] = 100
    """Maximum concurrent activities per worker process and task queue. It also sizes the thread pool for AWS
    calls."""
    worker_metrics_bind: ListenAddress | None = None
    """Host and port of the metrics of the worker and of the fleet (`/metrics`). Unset: no metrics
    endpoint."""
    sdk_metrics_bind: ListenIpAddress | None = None
    """IP address and port of the metrics of Temporal's SDK in the worker (`/metrics`). Unset: no endpoint."""
    database_pool_size: Annotated[int, Field(ge=1, le=200)] = 10
    """Maximum database connections of one process."""
    graceful_shutdown_seconds: Annotated[float, Field(ge=0)] = 25
    """How long running activities may continue after SIGTERM. Then each ends after its current AWS call (at
    most 18 s), and another worker retries it. Set the orchestrator's limit at least 20 s longer."""
    worker_health_bind: ListenAddress | None = None
    """Host and port of the worker's `/healthz` and `/readyz`. Unset: no probes."""
    temporal_deployment_name: Annotated[str | None, Field(pattern="^[A-Za-z0-9_-]{1,100}$")] = None
    """Worker deployment name. Set it together with `TEMPORAL_WORKER_BUILD_ID` to version workers: a build
    then gets work only after it was made current. See docs/deployment.md."""
    temporal_worker_build_id: Annotated[str | None, Field(pattern="^[A-Za-z0-9._-]{1,100}$")] = None
    """Build ID of this worker, different for each release. Set it together with `TEMPORAL_DEPLOYMENT_NAME`.
    See docs/deployment.md."""

    @model_validator(mode="after")
    def _deployment_name_with_build_id(self) -> Self:
        if (self.temporal_deployment_name is None) != (self.temporal_worker_build_id is None):
            raise ValueError(
                "TEMPORAL_DEPLOYMENT_NAME and TEMPORAL_WORKER_BUILD_ID belong together: set both or neither"
            )
        return self

    @model_validator(mode="after")
    def _distinct_listen_addresses(self) -> Self:
        require_distinct(
            {
                "WORKER_METRICS_BIND": self.worker_metrics_bind,
                "SDK_METRICS_BIND": self.sdk_metrics_bind,
                "WORKER_HEALTH_BIND": self.worker_health_bind,
            }
        )
        return self

    @field_validator("box_instance_types", "box_subnet_ids", "box_security_group_ids", mode="before")
    @classmethod
    def _split_lists(cls, value: object) -> object:
        return split_commas(value)

    @field_validator("box_instance_types")
    @classmethod
    def _not_empty(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not value:
            raise ValueError("at least one instance type is required")
        return value

    @field_validator("register_api_url")
    @classmethod
    def _is_url(cls, value: str) -> str:
        parts = urlsplit(value)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("must be an http or https URL")
        return value.rstrip("/")

    @property
    def shutdown_limit(self) -> timedelta:
        """How long a shutdown may take: the grace period, and the last AWS calls of cancelled activities."""
        return timedelta(seconds=self.graceful_shutdown_seconds) + FINAL_AWS_CALLS

    @property
    def deployment_version(self) -> WorkerDeploymentVersion | None:
        """The deployment version of this worker; None if workers are not versioned."""
        if self.temporal_deployment_name is None or self.temporal_worker_build_id is None:
            return None
        return WorkerDeploymentVersion(
            deployment_name=self.temporal_deployment_name, build_id=self.temporal_worker_build_id
        )

    @property
    def delegation_deadlines(self) -> Deadlines:
        """The deadlines of delegations."""
        return Deadlines(
            ack=timedelta(seconds=self.delegation_ack_seconds),
            progress=timedelta(seconds=self.delegation_progress_seconds),
            expires_after=timedelta(seconds=self.delegation_expire_seconds),
        )

    @property
    def liveness_thresholds(self) -> LivenessThresholds:
        """When an agent counts as unresponsive."""
        return LivenessThresholds(
            ack=timedelta(seconds=self.delegation_ack_seconds),
            progress=timedelta(seconds=self.delegation_progress_seconds),
            expires_after=timedelta(seconds=self.delegation_expire_seconds),
            heartbeat_stale=self.heartbeat_stale,
        )

    @property
    def watchdog_thresholds(self) -> WatchdogThresholds:
        """When the watchdog requests a recreate."""
        return WatchdogThresholds(stale=timedelta(seconds=self.stale_recreate_seconds))

    @property
    def watchdog_interval(self) -> timedelta:
        """`watchdog_interval_seconds` as a duration."""
        return timedelta(seconds=self.watchdog_interval_seconds)

    @property
    def sweep_interval(self) -> timedelta:
        """`orphan_sweep_interval_seconds` as a duration."""
        return timedelta(seconds=self.orphan_sweep_interval_seconds)

    @property
    def repair_interval(self) -> timedelta:
        """`repair_interval_seconds` as a duration."""
        return timedelta(seconds=self.repair_interval_seconds)

    @property
    def schedule_check_interval(self) -> timedelta:
        """`schedule_check_interval_seconds` as a duration."""
        return timedelta(seconds=self.schedule_check_interval_seconds)

    @property
    def orphan_policy(self) -> OrphanPolicy:
        """When the sweep acts on orphans, and its limit per pass."""
        policy = OrphanPolicy(
            min_age=timedelta(seconds=self.orphan_min_age_seconds),
            retry_after=timedelta(seconds=self.orphan_min_age_seconds),
            max_actions=self.orphan_max_actions_per_pass,
            dry_run=self.orphan_dry_run,
        )
        # A sighting must still be valid at the next pass, also with a long interval.
        expires_after = max(policy.sighting_expires_after, 5 * self.sweep_interval)
        return replace(policy, sighting_expires_after=expires_after)

    @property
    def timings(self) -> Timings:
        """The default timings; a workspace's spec may override them."""
        return Timings(
            instance_deadline=timedelta(seconds=self.instance_deadline_seconds),
            register_deadline=timedelta(seconds=self.register_deadline_seconds),
            recreate_grace=timedelta(seconds=self.recreate_grace_seconds),
            canary=self.canary,
            canary_deadline=timedelta(seconds=self.canary_deadline_seconds),
            not_processing=timedelta(seconds=self.not_processing_seconds),
            fence_unconfirmed=timedelta(seconds=self.fence_unconfirmed_seconds),
        )
