"""The public contract of delegations: workflow IDs, payloads of signals, and the status query."""

from workflows.delegation.rules import DelegationState
from workflows.shared.payloads import Message, Name, Reason

WORKFLOW_ID_PREFIX = "delegation:"
"""Workspace IDs have no colon, so a delegation, whose ID a box may choose, never has one as workflow ID."""


def workflow_id_of(delegation_id: str) -> str:
    """The ID of the delegation's workflow."""
    return WORKFLOW_ID_PREFIX + delegation_id


def delegation_id_of(workflow_id: str) -> str:
    """The ID of the workflow's delegation."""
    return workflow_id.removeprefix(WORKFLOW_ID_PREFIX)


class DelegationCommand(Message):
    """Who sends an operator's command about a delegation, and why."""

    reason: Reason = ""
    requested_by: Name = ""


class DelegationStatus(Message):
    """The answer of the `status` query. Task and result are in PostgreSQL only."""

    delegation_id: str
    state: DelegationState | None
    """None before the first check."""
    attempt: int
    held: bool
    """A dead letter: `resend` or `give_up` decides."""
