"""The public contract of delegations: payloads of signals and the status query."""

from workflows.delegation.rules import DelegationState
from workflows.shared.payloads import Message, Name, Reason


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
