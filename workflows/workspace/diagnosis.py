"""Why a box is not registered, in words that an operator can act on. Standard library only.

Judges what the register API was asked; it decides nothing that follows from it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from workflows.workspace.state import RegisterCallCount, RegistrationStatus

_MISSING, _INVALID, _NOT_READY = "token_missing", "token_invalid", "instance_not_ready"
_NEWS = (_MISSING, _INVALID, _NOT_READY)
"""The answers that tell why a box does not get in. Others are told to boxes before it, or to tools."""


_SAYS_NOTHING_YET = ("never_called", "not_beating")
"""A box that boots has not called, or not beaten, yet: only a deadline makes that a finding."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosis:
    """A code for programs, a sentence on what was seen, and what a human can do."""

    code: str
    message: str
    hint: str

    @property
    def reason(self) -> str:
        """The code as conditions have it: in CamelCase."""
        return "".join(word.capitalize() for word in self.code.split("_"))

    @property
    def is_conclusive(self) -> bool:
        """Whether it says something while the box may still be on its way."""
        return self.code not in _SAYS_NOTHING_YET


CREDENTIAL_LOST = Diagnosis(
    code="credential_lost",
    message="the box beats, and not with a live token: it lost its credential",
    hint="Its bootstrap script registers again by itself. If it does not, see the box's log (onebox-box), or "
    "recreate the box.",
)


def diagnose(registration: RegistrationStatus) -> Diagnosis:
    """Why no authenticated beat came, as far as the register API can know."""
    if registration.registered_at is not None:
        return _never_used(registration)
    news = [call for call in registration.calls if call.code in _NEWS]
    own = [call for call in news if call.from_box]
    if not news:
        return Diagnosis(
            code="never_called",
            message="the box never called the register API",
            hint="See the instance's console output (does it run its user data?), and whether it reaches "
            "REGISTER_API_URL (security groups, routes, DNS).",
        )
    codes = {call.code for call in own or news}
    calls = _calls(own or news, own=bool(own))
    if _INVALID in codes:
        return Diagnosis(
            code="wrong_evidence",
            message=f"{calls}, with a credential that proves nothing",
            hint="A bootstrap secret of another control plane, a key taken out of SERVER_KEYS too early, or "
            "a token file of another workspace." + _elsewhere(own),
        )
    if _MISSING in codes:
        return Diagnosis(
            code="called_without_evidence",
            message=f"{calls}, without any credential",
            hint="The runtime was started without the bootstrap script of the user data. Let the image run "
            "it, or set BOOTSTRAP_POLICY=address." + _elsewhere(own),
        )
    return Diagnosis(
        code="launch_not_recorded",
        message=f"{calls}, and was told to come again: the launch is not recorded",
        hint="See the worker's log for this workspace, and whether PostgreSQL takes its writes.",
    )


def _never_used(registration: RegistrationStatus) -> Diagnosis:
    if registration.token_unused:
        return Diagnosis(
            code="token_never_used",
            message="the box registered and was given a token, and nobody has used it",
            hint="The runtime did not start, or does not read its token file: see the box's log, and whether "
            "CONFIGS_DIR is the same for both.",
        )
    return Diagnosis(
        code="not_beating",
        message="the box registered, and no authenticated beat was taken in",
        hint="The runtime did not start, or does not use the token: see the agent's log on the box.",
    )


def _calls(calls: Sequence[RegisterCallCount], *, own: bool) -> str:
    times = sum(call.count for call in calls)
    source = max(calls, key=lambda call: call.last_at).source or "an unknown address"
    whose = "its own address" if own else "not the box's recorded address"
    return f"the register API was called {times} times, last from {source} ({whose})"


def _elsewhere(own: Sequence[RegisterCallCount]) -> str:
    if own:
        return ""
    return " If a proxy stands before the register API, name it in TRUSTED_PROXIES."
