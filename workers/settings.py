"""The settings of all processes, read from the environment and nowhere else.

Says what is wrong by the variable's name; it opens no connection and holds no default secret.
"""

import hashlib
import re
from dataclasses import replace
from datetime import timedelta
from ipaddress import ip_network
from typing import Annotated, Self, TypeVar
from urllib.parse import urlsplit

from pydantic import AliasChoices, Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict
from temporalio.common import WorkerDeploymentVersion

from register_api.peers import Network
from register_api.verdict import Policy
from store.credentials import InvalidServerKeys, ServerKeys
from store.processing import Patience
from store.watching import Patience as WatchPatience
from workers.binds import Listen, ListenByAddress, apart, parted
from workflows.delegations import Deadlines
from workflows.encryption import InvalidPayloadKeys, PayloadKeys
from workflows.fleet import FleetPolicy
from workflows.orphans import OrphanPolicy
from workflows.state import CanaryPolicy, Timings

Words = Annotated[tuple[str, ...], NoDecode]
"""Given as a comma-separated list."""

S = TypeVar("S", bound=BaseSettings)


class InvalidSettings(ValueError):
    """The environment is not usable; the text names each variable and its fault."""


class _Settings(BaseSettings):
    model_config = SettingsConfigDict(
        extra="ignore", frozen=True, env_ignore_empty=True, use_attribute_docstrings=True
    )


class LogSettings(_Settings):
    """What every process needs."""

    log_format: Annotated[str, Field(pattern="^(auto|json|console)$")] = "auto"
    """`json` for machines, `console` for people; `auto`: `console` on a terminal, else `json`."""
    log_level: Annotated[str, Field(pattern="^(DEBUG|INFO|WARNING|ERROR)$")] = "INFO"
    """The least severity that is logged."""


class StoreSettings(LogSettings):
    """What every process with a database needs."""

    database_url: SecretStr
    """PostgreSQL, as `postgresql://user:password@host:port/database`."""


class PayloadSettings(_Settings):
    """What everyone needs who reads or writes payloads: all clients of Temporal, and the codec server."""

    payload_keys: SecretStr = SecretStr("")
    """`id:hex[,id:hex …]`, 32 bytes each: payloads in Temporal are encrypted with the first, and all decrypt.
    Empty: payloads are in clear text. `off` in the place of the first key: not encrypted, but decrypted."""

    @field_validator("payload_keys")
    @classmethod
    def _opens_payloads(cls, value: SecretStr) -> SecretStr:
        try:
            PayloadKeys.parse(value.get_secret_value())
        except InvalidPayloadKeys as error:
            raise ValueError(str(error)) from None
        return value

    @property
    def payload_key_ring(self) -> PayloadKeys:
        """The parsed keys."""
        return PayloadKeys.parse(self.payload_keys.get_secret_value())


class KeySettings(StoreSettings):
    """What deriving and verifying credentials needs."""

    server_keys: SecretStr
    """`id:hex[,id:hex …]`, at least 32 bytes each: the first derives, all verify."""
    allow_loopback_targets: bool = False
    """Call boxes at loopback addresses, and tell of them: for boxes that are processes of this machine."""

    @field_validator("server_keys")
    @classmethod
    def _usable(cls, value: SecretStr) -> SecretStr:
        try:
            ServerKeys.parse(value.get_secret_value())
        except InvalidServerKeys as error:
            raise ValueError(str(error)) from None
        return value

    @property
    def keys(self) -> ServerKeys:
        """The parsed key ring."""
        return ServerKeys.parse(self.server_keys.get_secret_value())


class FleetSettings(KeySettings):
    """What judging boxes needs, one or all of them."""

    heartbeat_stale_seconds: Annotated[float, Field(gt=0)] = 90
    """A box that is silent for longer is shown as degraded."""
    fleet_freeze_percent: Annotated[float, Field(ge=0, le=100)] = 20
    """More of the workspaces stale at once than this, and nothing automatic is recreated."""
    fleet_freeze_from: Annotated[int, Field(ge=1)] = 5
    """A fleet of fewer workspaces is not frozen for its share of stale ones."""
    fleet_concurrent_percent: Annotated[float, Field(gt=0, le=100)] = 10
    """So many of the workspaces may be recreated automatically at once; at least one may."""
    fleet_concurrent_most: Annotated[int, Field(ge=1)] = 20
    """And no more than so many, however large the fleet is."""

    @property
    def heartbeat_stale(self) -> timedelta:
        """As a duration."""
        return timedelta(seconds=self.heartbeat_stale_seconds)

    @property
    def fleet_policy(self) -> FleetPolicy:
        """How much at once is too much."""
        return FleetPolicy(
            frozen_share=self.fleet_freeze_percent / 100,
            frozen_from=self.fleet_freeze_from,
            concurrent_share=self.fleet_concurrent_percent / 100,
            concurrent_most=self.fleet_concurrent_most,
            stale=self.heartbeat_stale,
        )


class ApiSettings(FleetSettings):
    """The register API."""

    register_api_bind: Listen = "127.0.0.1:8080"
    """Host and port to listen on."""
    operator_token_hashes: Words = ()
    """SHA-256 (hexadecimal) of the tokens that may read every record."""
    bootstrap_policy: Policy = Policy.SECRET
    """How a box without a token proves itself: `secret`, by the bootstrap secret of its user data; `address`,
    by that or by calling from its recorded address; `both`, by the secret from that address."""
    trusted_proxies: Words = ()
    """Addresses or networks (CIDR) of proxies before the API: only their `X-Forwarded-For` says where a call
    comes from. Empty: the TCP peer is the caller."""
    api_metrics_bind: Listen | None = None
    """Host and port of the register API's metrics (`/metrics`), never public; unset: nothing listens."""
    database_pool_size: Annotated[int, Field(ge=1, le=200)] = 16
    """Connections of one process; beats are served by few of them."""
    shutdown_delay_seconds: Annotated[float, Field(ge=0, le=300)] = 0
    """Behind a load balancer: after SIGTERM the API is not ready, and serves on for so long. More than the
    balancer takes to notice; with the 10 s that running requests get, less than the orchestrator's limit."""
    keep_alive_seconds: Annotated[int, Field(ge=1, le=3600)] = 5
    """How long an idle connection is kept. Behind a load balancer: longer than the balancer keeps it (an ALB:
    60, so 65 here), or it sends a call just as the connection is closed, and the box gets a 502."""

    @field_validator("operator_token_hashes", "trusted_proxies", mode="before")
    @classmethod
    def _listed(cls, value: object) -> object:
        return words(value)

    @field_validator("operator_token_hashes")
    @classmethod
    def _are_hashes(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if any(not re.fullmatch("[0-9a-f]{64}", each) for each in value):
            raise ValueError("each entry must be 64 hexadecimal digits: the SHA-256 of a token")
        return value

    @field_validator("trusted_proxies")
    @classmethod
    def _are_networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for each in value:
            try:
                ip_network(each)
            except ValueError as error:
                raise ValueError(f"each entry must be an address or a network: {error}") from None
        return value

    @model_validator(mode="after")
    def _listening_apart(self) -> Self:
        apart({"REGISTER_API_BIND": self.register_api_bind, "API_METRICS_BIND": self.api_metrics_bind})
        return self

    @property
    def proxies(self) -> tuple[Network, ...]:
        """The trusted proxies as networks."""
        return tuple(map(ip_network, self.trusted_proxies))

    @property
    def bind(self) -> tuple[str, int]:
        """Host and port."""
        return parted(self.register_api_bind)

    @property
    def shutdown_delay(self) -> timedelta:
        """As a duration."""
        return timedelta(seconds=self.shutdown_delay_seconds)


class WorkerSettings(FleetSettings, PayloadSettings):
    """The worker: where boxes are launched, and what they are told."""

    aws_region: Annotated[
        str | None, Field(validation_alias=AliasChoices("AWS_REGION", "AWS_DEFAULT_REGION"))
    ] = None
    """Where boxes are launched; if unset, what AWS's own configuration files say."""
    onebox_owner: Annotated[str, Field(pattern="^[a-z0-9][a-z0-9-]{0,62}$")] = "onebox"
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
    box_instance_types: Words = ("t3.small",)
    """In order of preference."""
    box_subnet_ids: Words = ()
    """In order of preference; empty: the account's default."""
    box_security_group_ids: Words = ()
    """Empty: the account's default."""
    box_runtime_command: str
    """What starts the agent runtime on a box, as a shell would split it."""
    box_runtime_user: str = "agent"
    """Whose the runtime and its token file are; ignored where the box script is not root."""
    box_runtime_port: Annotated[int, Field(ge=1, le=65_535)] = 8000
    """Where the runtime takes messages."""
    box_configs_dir: str = "/configs"
    """Where the runtime looks for `.auth_token`."""
    offering_bad_seconds: Annotated[float, Field(ge=0)] = 180
    """For so long a type and zone in which EC2 had no room isn't asked for, by any workspace."""
    box_data_dir: Annotated[str, Field(pattern="^/")] = "/data"
    """Where a box mounts the workspace's data volume, if it has one; the runtime is told as `DATA_DIR`."""
    ec2_mutations_per_second: Annotated[float, Field(gt=0)] = 2.0
    """Across all workers; EC2 refills RunInstances at about this rate."""
    register_deadline_seconds: Annotated[float, Field(gt=0)] = 600
    """From an instance running to its first authenticated beat."""
    fence_unconfirmed_seconds: Annotated[float, Field(gt=0)] = 600
    """When a termination that can't be confirmed stands on the record, and `declare_dead` is heard."""
    settling_seconds: Annotated[float, Field(ge=0)] = 120
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
    watchdog_seconds: Annotated[float, Field(ge=1)] = 30
    """How often the watchdog looks for workspaces that need another box."""
    recreate_after_seconds: Annotated[float, Field(gt=0)] = 180
    """A box that is silent, or without a live token, for so long is a reason for recreation."""
    orphan_sweep_seconds: Annotated[float, Field(ge=1, le=86_400)] = 120
    """How often instances and DNS names that no generation claims are looked for."""
    orphan_age_seconds: Annotated[float, Field(ge=0)] = 300
    """Younger ones are left alone: a launch that is on its way looks the same."""
    orphans_per_pass: Annotated[int, Field(ge=0, le=100)] = 5
    """So many are terminated, removed, or reported to their workflows in one pass."""
    orphan_dry_run: bool = False
    """Only say what would be done about them, in the result of the pass and in the log."""
    max_concurrent_activities: Annotated[int, Field(ge=1, le=5000)] = 100
    """Of one worker process and task queue; also the number of threads for AWS calls."""
    worker_metrics_bind: Listen | None = None
    """Host and port of the worker's metrics and the fleet's figures (`/metrics`); unset: nothing listens."""
    sdk_metrics_bind: ListenByAddress | None = None
    """Address (no name) and port of the metrics of Temporal's SDK in the worker (`/metrics`); unset: nothing
    listens."""
    database_pool_size: Annotated[int, Field(ge=1, le=200)] = 10
    """Connections of one process."""
    graceful_shutdown_seconds: Annotated[float, Field(ge=0)] = 25
    """How long running activities may go on after SIGTERM; then they are handed to other workers, each after
    its call to AWS has ended (18 s at the most): the orchestrator's limit has to be 20 s longer."""
    worker_health_bind: Listen | None = None
    """Host and port for `/healthz` and `/readyz` of this process; unset: nothing listens."""
    temporal_deployment_name: Annotated[str | None, Field(pattern="^[A-Za-z0-9_-]{1,100}$")] = None
    """Together with `TEMPORAL_WORKER_BUILD_ID`: workers are versioned, and a build gets work only once it is
    made current. See docs/deployment.md."""
    temporal_worker_build_id: Annotated[str | None, Field(pattern="^[A-Za-z0-9._-]{1,100}$")] = None
    """Together with `TEMPORAL_DEPLOYMENT_NAME`: which build this worker is, another one for each release. See
    docs/deployment.md."""

    @model_validator(mode="after")
    def _versioned_wholly_or_not(self) -> Self:
        if (self.temporal_deployment_name is None) != (self.temporal_worker_build_id is None):
            raise ValueError(
                "TEMPORAL_DEPLOYMENT_NAME and TEMPORAL_WORKER_BUILD_ID go together: set both or none"
            )
        return self

    @model_validator(mode="after")
    def _listening_apart(self) -> Self:
        apart(
            {
                "WORKER_METRICS_BIND": self.worker_metrics_bind,
                "SDK_METRICS_BIND": self.sdk_metrics_bind,
                "WORKER_HEALTH_BIND": self.worker_health_bind,
            }
        )
        return self

    @field_validator("box_instance_types", "box_subnet_ids", "box_security_group_ids", mode="before")
    @classmethod
    def _listed(cls, value: object) -> object:
        return words(value)

    @field_validator("box_instance_types")
    @classmethod
    def _at_least_one(cls, value: tuple[str, ...]) -> tuple[str, ...]:
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
        return parted(self.worker_health_bind) if self.worker_health_bind else None

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
            whole=timedelta(seconds=self.delegation_expire_seconds),
        )

    @property
    def processing_patience(self) -> Patience:
        """How long an agent may be quiet about what it was given."""
        return Patience(
            ack=timedelta(seconds=self.delegation_ack_seconds),
            progress=timedelta(seconds=self.delegation_progress_seconds),
            whole=timedelta(seconds=self.delegation_expire_seconds),
            beat_stale=self.heartbeat_stale,
        )

    @property
    def watch_patience(self) -> WatchPatience:
        """How long something may be wrong before the watchdog asks for another box."""
        return WatchPatience(silent=timedelta(seconds=self.recreate_after_seconds))

    @property
    def watchdog_every(self) -> timedelta:
        """As a duration."""
        return timedelta(seconds=self.watchdog_seconds)

    @property
    def sweep_every(self) -> timedelta:
        """As a duration."""
        return timedelta(seconds=self.orphan_sweep_seconds)

    @property
    def orphan_policy(self) -> OrphanPolicy:
        """How sure the sweep must be, and how much it does at once."""
        policy = OrphanPolicy(
            age=timedelta(seconds=self.orphan_age_seconds),
            again_after=timedelta(seconds=self.orphan_age_seconds),
            most=self.orphans_per_pass,
            dry_run=self.orphan_dry_run,
        )
        # Two passes in a row must be able to see the same thing, however seldom they are.
        lasts = max(policy.sighting_lasts, 5 * self.sweep_every)
        return replace(policy, sighting_lasts=lasts)

    @property
    def timings(self) -> Timings:
        """The defaults that a workspace's spec may change."""
        return Timings(
            register_deadline=timedelta(seconds=self.register_deadline_seconds),
            settling=timedelta(seconds=self.settling_seconds),
            canary=self.canary,
            canary_deadline=timedelta(seconds=self.canary_deadline_seconds),
            not_processing=timedelta(seconds=self.not_processing_seconds),
            fence_unconfirmed=timedelta(seconds=self.fence_unconfirmed_seconds),
        )


def load(kind: type[S]) -> S:
    """Read the settings from the environment; raise `InvalidSettings` naming what is wrong."""
    try:
        return kind()
    except ValidationError as error:
        raise InvalidSettings(
            "\n".join(
                f"{'_'.join(map(str, fault['loc'])).upper() or 'together'}: {fault['msg']}"
                for fault in error.errors(include_url=False, include_input=False)
            )
        ) from None


def operator_token_hash(token: str) -> str:
    """What `OPERATOR_TOKEN_HASHES` holds of a token."""
    return hashlib.sha256(token.encode()).hexdigest()


def words(value: object) -> object:
    """A comma-separated list as a tuple; what is no text stays what it is."""
    if isinstance(value, str):
        return tuple(word.strip() for word in value.split(",") if word.strip())
    return value
