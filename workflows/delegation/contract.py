"""The contract of the activity of `DelegationWorkflow`."""

from dataclasses import dataclass
from enum import StrEnum

from temporalio import activity

from workflows.delegation.rules import DelegationState


class Command(StrEnum):
    """What an operator does about a delegation."""

    RESEND = "resend"
    """Send a dead letter again, with a new set of attempts."""
    GIVE_UP = "give_up"
    """End it unprocessed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Advance:
    """Do what is due about a delegation."""

    delegation_id: str
    command: Command | None = None
    requested_by: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Advanced:
    """The state of the delegation now."""

    over: bool
    state: DelegationState
    attempt: int
    wait_seconds: float = 0.0
    """Seconds until the next check, unless the row changes before."""
    dead_lettered: bool = False
    """Whether the attempts are used up: `resend` or `give_up` decides."""


@activity.defn
async def advance_delegation(request: Advance) -> Advanced:
    """Deliver, requeue, mark or end the delegation, whichever is due; return once it has to wait."""
    raise NotImplementedError
