"""Why a box is not registered: code, message and hint for an operator. Standard library only.

Derived from the calls that the register API has recorded.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from workflows.shared.step_result import StepResult

_MISSING, _INVALID, _NOT_READY = "token_missing", "token_invalid", "instance_not_ready"
_RELEVANT_CODES = (_MISSING, _INVALID, _NOT_READY)
"""Responses that explain why a box is not registered. Other codes go to earlier boxes, or to tools."""

_INCONCLUSIVE = ("never_called", "not_beating")
"""A box that still boots looks the same: these explain a failure only after the deadline."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RegisterCallCount:
    """How many register calls got one response code."""

    code: str
    count: int
    from_box: bool
    """Whether the calls came from the address recorded for the box."""
    last_at: datetime
    source: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistrationStatus(StepResult):
    """What the register API has recorded about a generation's box."""

    registered_at: datetime | None = None
    heartbeat_at: datetime | None = None
    """The last heartbeat, if it is fresh."""
    token_unused: bool = False
    """A token was issued, and no call has used it."""
    calls: tuple[RegisterCallCount, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosis:
    """A code for programs, what was observed, and what an operator can do."""

    code: str
    message: str
    hint: str

    @property
    def reason(self) -> str:
        """The code as a condition's reason: in CamelCase."""
        return "".join(word.capitalize() for word in self.code.split("_"))

    @property
    def is_conclusive(self) -> bool:
        """Whether it holds also while the box may still be booting."""
        return self.code not in _INCONCLUSIVE


CREDENTIAL_LOST = Diagnosis(
    code="credential_lost",
    message="heartbeats arrive without a valid token: the box has lost its credentials",
    hint="Its bootstrap script registers again automatically. If it does not, see the box's log "
    "(onebox-box), or recreate the box.",
)


def diagnose(registration: RegistrationStatus) -> Diagnosis:
    """Why no authenticated heartbeat has arrived, from what the register API has recorded."""
    if registration.registered_at is not None:
        return _never_used(registration)
    relevant = [call for call in registration.calls if call.code in _RELEVANT_CODES]
    own = [call for call in relevant if call.from_box]
    if not relevant:
        return Diagnosis(
            code="never_called",
            message="the box never called the register API",
            hint="Check the instance's console output (does it run its user data?), and whether it reaches "
            "REGISTER_API_URL (security groups, routes, DNS).",
        )
    codes = {call.code for call in own or relevant}
    calls = _calls(own or relevant, own=bool(own))
    if _INVALID in codes:
        return Diagnosis(
            code="wrong_evidence",
            message=f"{calls}, with an invalid credential",
            hint="Possible causes: a bootstrap secret of another control plane, a key removed from "
            "SERVER_KEYS too early, or a token file of another workspace." + _proxy_hint(own),
        )
    if _MISSING in codes:
        return Diagnosis(
            code="called_without_evidence",
            message=f"{calls}, without any credential",
            hint="The runtime was started without the bootstrap script of the user data. Let the image run "
            "it, or set BOOTSTRAP_POLICY=address." + _proxy_hint(own),
        )
    return Diagnosis(
        code="launch_not_recorded",
        message=f"{calls}, and answered that the launch is not recorded yet",
        hint="See the worker's log for this workspace, and check that PostgreSQL accepts its writes.",
    )


def _never_used(registration: RegistrationStatus) -> Diagnosis:
    if registration.token_unused:
        return Diagnosis(
            code="token_never_used",
            message="the box registered and received a token, and no call has used it",
            hint="The runtime did not start, or does not read its token file: see the box's log, and check "
            "that CONFIGS_DIR is the same for both.",
        )
    return Diagnosis(
        code="not_beating",
        message="the box registered, and no authenticated heartbeat has arrived",
        hint="The runtime did not start, or does not use the token: see the agent's log on the box.",
    )


def _calls(calls: Sequence[RegisterCallCount], *, own: bool) -> str:
    number = sum(call.count for call in calls)
    times = "once" if number == 1 else f"{number} times"
    source = max(calls, key=lambda call: call.last_at).source or "an unknown address"
    whose = "its own address" if own else "not the box's recorded address"
    return f"the register API was called {times}, last from {source} ({whose})"


def _proxy_hint(own: Sequence[RegisterCallCount]) -> str:
    if own:
        return ""
    return " If the register API is behind a proxy, add the proxy to TRUSTED_PROXIES."
