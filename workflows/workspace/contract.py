"""Typed stubs of the activities of a workspace's life and of the watchdog: all that workflows see of them.

Each docstring is the contract that the implementation keeps; no implementation is imported here.
Every activity can run twice, or half, or beside an older attempt of itself, with the effect of once. Those of
volumes, the sweep, delegations and rolls have modules of their own beside this one.
"""

from dataclasses import dataclass

from temporalio import activity

from workflows.workspace.events import (
    AddressResult,
    CanaryResult,
    Enrolled,
    Evicted,
    FenceObserved,
    FleetPermit,
    GenerationOpened,
    LaunchResult,
    MissingInstance,
    WatchdogReport,
)
from workflows.workspace.messages import WorkspaceSpec
from workflows.workspace.requests import Request
from workflows.workspace.state import Condition, Intent, LastError, Phase, RegistrationStatus

__all__ = [
    "SUPERSEDED",
    "Address",
    "AddressResult",
    "AskCanary",
    "CanaryResult",
    "CheckRegistration",
    "CloseWorkspace",
    "Enroll",
    "Enrolled",
    "Evict",
    "Evicted",
    "FenceInstances",
    "FenceObserved",
    "FleetPermit",
    "GenerationOpened",
    "Launch",
    "LaunchResult",
    "MissingInstance",
    "OpenGeneration",
    "RecordStatus",
    "RegistrationStatus",
    "RemoveAddress",
    "RequestFleetPermit",
    "StatusRecorded",
    "Watch",
    "WatchdogReport",
    "address",
    "ask_canary",
    "check_registration",
    "close_workspace",
    "enroll",
    "evict",
    "fence_instances",
    "launch",
    "open_generation",
    "record_status",
    "remove_address",
    "request_fleet_permit",
    "watch",
]

SUPERSEDED = "generation_superseded"
"""Error type, not retryable: PostgreSQL has a newer generation than the request names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Enroll:
    """Make sure that the workspace has a record, and read it."""

    workspace_id: str
    spec: WorkspaceSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenGeneration:
    """Open the generation after `after`, unless that was done already."""

    workspace_id: str
    after: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CloseWorkspace:
    """Take all rights from the boxes of the workspace: it is stopped or deleted."""

    workspace_id: str
    generation: int
    """Nothing happens if a newer one was opened: a late attempt must not close what a start opened."""
    intent: Intent


@dataclass(frozen=True, slots=True, kw_only=True)
class FenceInstances:
    """Terminate the instances of older generations, and look.

    An instance of a newer generation than `generation` is never touched: this may be a late attempt.
    """

    workspace_id: str
    generation: int
    keep_attempt: int | None
    """Of `generation` itself, the attempt whose instance stays; None: none of them stays."""
    declared_dead: tuple[str, ...]
    """Instances that a human declared dead: recorded as such, and no longer looked at."""
    proven_gone: tuple[str, ...]
    """Keys of missing ones that the lifecycle judged to be gone: recorded, and no longer looked at."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """Launch the box of this generation and attempt, or find the one that was launched."""

    workspace_id: str
    generation: int
    attempt: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """Wait for the instance to run, and point the workspace's DNS name at it."""

    workspace_id: str
    generation: int
    attempt: int
    instance_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoveAddress:
    """Remove the DNS name of a deleted workspace."""

    workspace_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AskCanary:
    """Ask the agent of the current box a question of the control plane's own."""

    workspace_id: str
    generation: int
    attempt: int
    """Which try it is; the box sees one message ID for all of them."""
    round: int = 0
    """Which question it is, under the policy that asks again and again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckRegistration:
    """Ask the record what the box of a generation did."""

    workspace_id: str
    generation: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestFleetPermit:
    """Ask for leave to recreate a workspace that no human asked for."""

    workspace_id: str
    generation: int
    """The one that would be opened."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Watch:
    """Go one round of the watchdog."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evict:
    """End what is alive of a superseded generation, whatever was believed of it before."""

    workspace_id: str
    generation: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordStatus:
    """Write the status, and the outcomes that are not written yet."""

    workspace_id: str
    generation: int
    revision: int
    phase: Phase
    last_error: LastError | None
    conditions: tuple[Condition, ...]
    requests: tuple[Request, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class StatusRecorded:
    """`revision` is the newest one; larger than the request's if a newer status stands."""

    revision: int


@activity.defn
async def enroll(request: Enroll) -> Enrolled:
    """Insert the record if there is none; never overwrite a stored spec with an empty one."""
    raise NotImplementedError


@activity.defn
async def open_generation(request: OpenGeneration) -> GenerationOpened:
    """In one transaction: supersede the old generation, revoke its tokens, insert the new one.

    A compare-and-set on `after`: if a newer generation is current already, that one is the answer; if the
    newer one was closed by a stop, the request is late and fails with `SUPERSEDED`.
    """
    raise NotImplementedError


@activity.defn
async def close_workspace(request: CloseWorkspace) -> None:
    """In one transaction: store the intent, supersede the generation, revoke its tokens."""
    raise NotImplementedError


@activity.defn
async def fence_instances(request: FenceInstances) -> FenceObserved:
    """Terminate, then poll for at most a minute. An empty listing confirms nothing."""
    raise NotImplementedError


@activity.defn
async def launch(request: Launch) -> LaunchResult:
    """Adopt by tag, else RunInstances with the durable ClientToken and the frozen request."""
    raise NotImplementedError


@activity.defn
async def address(request: Address) -> AddressResult:
    """Wait until running, then one compare-and-swap change batch; nothing if it is in sync."""
    raise NotImplementedError


@activity.defn
async def remove_address(request: RemoveAddress) -> None:
    """Delete the DNS name, if it is there."""
    raise NotImplementedError


@activity.defn
async def ask_canary(request: AskCanary) -> CanaryResult:
    """One A2A `message/send` to the recorded address; port and path come from the registered URL."""
    raise NotImplementedError


@activity.defn
async def check_registration(request: CheckRegistration) -> RegistrationStatus:
    """Read registration, last beat, and what the register calls were answered; changes nothing."""
    raise NotImplementedError


@activity.defn
async def request_fleet_permit(request: RequestFleetPermit) -> FleetPermit:
    """Judge the fleet, and take one of the places of automatic recreates; a retry finds its own."""
    raise NotImplementedError


@activity.defn
async def watch(request: Watch) -> WatchdogReport:
    """Ask for other boxes where that is due, in one query; nothing at all while the fleet is frozen."""
    raise NotImplementedError


@activity.defn
async def evict(request: Evict) -> Evicted:
    """Terminate the instances of a superseded generation that are alive; those declared dead, too."""
    raise NotImplementedError


@activity.defn
async def record_status(request: RecordStatus) -> StatusRecorded:
    """Write if no newer revision stands; outcomes are inserted once for each request ID."""
    raise NotImplementedError
