"""Typed stubs of the activity of delegations, beside `ports`: all that `DelegationWorkflow` sees of it.

Its docstring is the contract that the implementation keeps; no implementation is imported here.
"""

from dataclasses import dataclass
from enum import StrEnum

from temporalio import activity

from workflows.delegation.rules import DelegationState


class Command(StrEnum):
    """A human's word about a delegation."""

    RESEND = "resend"
    """Send a dead letter again, with all its attempts."""
    GIVE_UP = "give_up"
    """End it without its being processed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Advance:
    """Do what is due about a delegation."""

    delegation_id: str
    order: Command | None = None
    ordered_by: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Advanced:
    """How far it is now."""

    over: bool
    state: DelegationState
    attempt: int
    wait_seconds: float = 0.0
    """When to look again, if nothing stirs before."""
    dead_lettered: bool = False
    """It is a dead letter."""


@activity.defn
async def advance_delegation(request: Advance) -> Advanced:
    """Deliver, requeue, flag or end it, whatever is due; returns when there is something to wait for."""
    raise NotImplementedError
