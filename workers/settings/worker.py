"""What the worker is told: where boxes are launched, how long is waited for what."""

from dataclasses import replace
from datetime import timedelta
from typing import Annotated, Self
from urllib.parse import urlsplit

from pydantic import AliasChoices, Field, field_validator, model_validator
from temporalio.common import WorkerDeploymentVersion

from store.delegation.agent_liveness import LivenessThresholds
from store.fleet.watchdog_queries import WatchdogThresholds as WatchPatience
from workers.settings.common import CommaSeparated, FleetSettings, PayloadSettings, split_commas
from workers.settings.listen_address import ListenAddress, ListenIpAddress, require_distinct, split_host_port
from workflows.delegation.rules import Deadlines
from workflows.orphans.rules import OrphanPolicy
from workflows.workspace.state import CanaryPolicy, Timings

FINAL_AWS_CALLS = timedelta(seconds=20)
"""An activity that is told to end does so after its call to AWS, which takes 18 s at the most."""


class WorkerSettings(FleetSettings, PayloadSettings):
    """The worker: where boxes are launched, and what they are told."""

    aws_region: Annotated[
        str | None, Field(validation_alias=AliasChoices("AWS_REGION", "AWS_DEFAULT_REGION"))
    ] = None
    """Where boxes are launched; if unset, what AWS's own configuration files say."""
    control_plane_id: Annotated[str, Field(pattern="^[a-z0-9][a-z0-9-]{0,62}$")] = "onebox"
    """Which control plane this is; instances and DNS names of another one are never touched."""
    register_api_url: Annotated[str, Field(max_length=500)]
    """What boxes call: the register API as they reach it."""
    dns_zone_id: str
    """The Route 53 hosted zone of the workspaces' names."""
    dns_zone_name: Annotated[str, Field(pattern=r"^[a-z0-9.-]+$")]
    """Its name; a workspace's DNS name is its ID in this zone."""
    dns_ttl_seconds: Annotated[int, Field(ge=0, le=86_400)] = 30
    """How long resolvers may keep an address."""
    box_image_id: str
    """The AMI that boxes run; a workspace's spec may name another."""
    box_instance_types: CommaSeparated = ("t3.small",)
    """In order of preference."""
    box_subnet_ids: CommaSeparated = ()
    """In order of preference; empty: the account's default."""
    box_security_group_ids: CommaSeparated = ()
    """Empty: the account's default."""
    box_runtime_command: str
    """What starts the agent runtime on a box, as a shell would split it."""
    box_runtime_user: str = "agent"
    """Whose the runtime and its token file are; ignored where the box script is not root."""
    box_runtime_port: Annotated[int, Field(ge=1, le=65_535)] = 8000
    """Where the runtime takes messages."""
    box_configs_dir: str = "/configs"
    """Where the runtime looks for `.auth_token`."""
    unavailable_offering_ttl_seconds: Annotated[float, Field(ge=0)] = 180
    """For so long a type and zone in which EC2 had no room isn't asked for, by any workspace."""
    box_data_dir: Annotated[str, Field(pattern="^/")] = "/data"
    """Where a box mounts the workspace's data volume, if it has one; the runtime is told as `DATA_DIR`."""
    ec2_mutations_per_second: Annotated[float, Field(gt=0)] = 2.0
    """Across all workers; EC2 refills RunInstances at about this rate."""
    register_deadline_seconds: Annotated[float, Field(gt=0)] = 600
    """From an instance running to its first authenticated beat."""
    fence_unconfirmed_seconds: Annotated[float, Field(gt=0)] = 600
    """When a termination that can't be confirmed stands on the record, and `declare_dead` is heard."""
    recreate_grace_seconds: Annotated[float, Field(ge=0)] = 120
    """For so long after a box came online, a recreate that names no generation is stale."""
    canary: CanaryPolicy = CanaryPolicy.GENERATION
    """When the agent is asked a question: `off`, `generation` (once for each), or `idle` (also when nothing
    was processed for 10 min)."""
    canary_deadline_seconds: Annotated[float, Field(gt=0)] = 300
    """When an unanswered canary makes the workspace degraded."""
    delegation_ack_seconds: Annotated[float, Field(gt=0)] = 120
    """A delivered delegation that isn't acknowledged by then makes the workspace degraded."""
    delegation_progress_seconds: Annotated[float, Field(gt=0)] = 600
    """An acknowledged one of which nothing is heard for so long is stalled."""
    delegation_expire_seconds: Annotated[float, Field(gt=0)] = 21_600
    """Then it expires, whatever its state is."""
    not_processing_seconds: Annotated[float, Field(gt=0)] = 180
    """A box that is degraded for so long because it doesn't process is a reason for recreation."""
    watchdog_interval_seconds: Annotated[float, Field(ge=1)] = 30
    """How often the watchdog looks for workspaces that need another box."""
    stale_recreate_seconds: Annotated[float, Field(gt=0)] = 180
    """A box that is silent, or without a live token, for so long is a reason for recreation."""
    orphan_sweep_interval_seconds: Annotated[float, Field(ge=1, le=86_400)] = 120
    """How often instances and DNS names that no generation claims are looked for."""
    orphan_min_age_seconds: Annotated[float, Field(ge=0)] = 300
    """Younger ones are left alone: a launch that is on its way looks the same."""
    orphan_max_actions_per_pass: Annotated[int, Field(ge=0, le=100)] = 5
    """So many are terminated, removed, or reported to their workflows in one pass."""
    orphan_dry_run: bool = False
    """Only say what would be done about them, in the result of the pass and in the log."""
    repair_interval_seconds: Annotated[float, Field(ge=1, le=86_400)] = 120
    """How often runs are looked for that no replay can go on with, to be reset to where it parts."""
    max_concurrent_activities: Annotated[int, Field(ge=1, le=5000)] = 100
    """Of one worker process and task queue; also the number of threads for AWS calls."""
    worker_metrics_bind: ListenAddress | None = None
    """Host and port of the worker's metrics and the fleet's figures (`/metrics`); unset: nothing listens."""
    sdk_metrics_bind: ListenIpAddress | None = None
    """Address (no name) and port of the metrics of Temporal's SDK in the worker (`/metrics`); unset: nothing
    listens."""
    database_pool_size: Annotated[int, Field(ge=1, le=200)] = 10
    """Connections of one process."""
    graceful_shutdown_seconds: Annotated[float, Field(ge=0)] = 25
    """How long running activities may go on after SIGTERM; then they are handed to other workers, each after
    its call to AWS has ended (18 s at the most): the orchestrator's limit has to be 20 s longer."""
    worker_health_bind: ListenAddress | None = None
    """Host and port for `/healthz` and `/readyz` of this process; unset: nothing listens."""
    temporal_deployment_name: Annotated[str | None, Field(pattern="^[A-Za-z0-9_-]{1,100}$")] = None
    """Together with `TEMPORAL_WORKER_BUILD_ID`: workers are versioned, and a build gets work only once it is
    made current. See docs/deployment.md."""
    temporal_worker_build_id: Annotated[str | None, Field(pattern="^[A-Za-z0-9._-]{1,100}$")] = None
    """Together with `TEMPORAL_DEPLOYMENT_NAME`: which build this worker is, another one for each release. See
    docs/deployment.md."""

    @model_validator(mode="after")
    def _deployment_name_with_build_id(self) -> Self:
        if (self.temporal_deployment_name is None) != (self.temporal_worker_build_id is None):
            raise ValueError(
                "TEMPORAL_DEPLOYMENT_NAME and TEMPORAL_WORKER_BUILD_ID go together: set both or none"
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
            raise ValueError("at least one instance type is needed")
        return value

    @field_validator("register_api_url")
    @classmethod
    def _is_url(cls, value: str) -> str:
        parts = urlsplit(value)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("must be an http or https URL")
        return value.rstrip("/")

    @property
    def health_bind(self) -> tuple[str, int] | None:
        """Host and port of the probes, if there are any."""
        return split_host_port(self.worker_health_bind) if self.worker_health_bind else None

    @property
    def shutdown_limit(self) -> timedelta:
        """After that it never ends: activities were told to, and their last calls to AWS are over."""
        return timedelta(seconds=self.graceful_shutdown_seconds) + FINAL_AWS_CALLS

    @property
    def deployment_version(self) -> WorkerDeploymentVersion | None:
        """The version of this worker, if workers are versioned."""
        if self.temporal_deployment_name is None or self.temporal_worker_build_id is None:
            return None
        return WorkerDeploymentVersion(
            deployment_name=self.temporal_deployment_name, build_id=self.temporal_worker_build_id
        )

    @property
    def delegation_deadlines(self) -> Deadlines:
        """How long each part of a delegation may take."""
        return Deadlines(
            ack=timedelta(seconds=self.delegation_ack_seconds),
            progress=timedelta(seconds=self.delegation_progress_seconds),
            expires_after=timedelta(seconds=self.delegation_expire_seconds),
        )

    @property
    def liveness_thresholds(self) -> LivenessThresholds:
        """How long an agent may be quiet about what it was given."""
        return LivenessThresholds(
            ack=timedelta(seconds=self.delegation_ack_seconds),
            progress=timedelta(seconds=self.delegation_progress_seconds),
            expires_after=timedelta(seconds=self.delegation_expire_seconds),
            heartbeat_stale=self.heartbeat_stale,
        )

    @property
    def watchdog_thresholds(self) -> WatchPatience:
        """How long something may be wrong before the watchdog asks for another box."""
        return WatchPatience(stale=timedelta(seconds=self.stale_recreate_seconds))

    @property
    def watchdog_interval(self) -> timedelta:
        """As a duration."""
        return timedelta(seconds=self.watchdog_interval_seconds)

    @property
    def sweep_interval(self) -> timedelta:
        """As a duration."""
        return timedelta(seconds=self.orphan_sweep_interval_seconds)

    @property
    def repair_interval(self) -> timedelta:
        """As a duration."""
        return timedelta(seconds=self.repair_interval_seconds)

    @property
    def orphan_policy(self) -> OrphanPolicy:
        """How sure the sweep must be, and how much it does at once."""
        policy = OrphanPolicy(
            min_age=timedelta(seconds=self.orphan_min_age_seconds),
            retry_after=timedelta(seconds=self.orphan_min_age_seconds),
            max_actions=self.orphan_max_actions_per_pass,
            dry_run=self.orphan_dry_run,
        )
        # Two passes in a row must be able to see the same thing, however seldom they are.
        lasts = max(policy.sighting_expires_after, 5 * self.sweep_interval)
        return replace(policy, sighting_expires_after=lasts)

    @property
    def timings(self) -> Timings:
        """The defaults that a workspace's spec may change."""
        return Timings(
            register_deadline=timedelta(seconds=self.register_deadline_seconds),
            recreate_grace=timedelta(seconds=self.recreate_grace_seconds),
            canary=self.canary,
            canary_deadline=timedelta(seconds=self.canary_deadline_seconds),
            not_processing=timedelta(seconds=self.not_processing_seconds),
            fence_unconfirmed=timedelta(seconds=self.fence_unconfirmed_seconds),
        )
