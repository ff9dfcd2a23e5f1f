"""What a check found: values, and the few ways to make them.

It looks at nothing, and prints nothing.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum


class Status(StrEnum):
    """How a check went."""

    OK = "ok"
    SKIPPED = "skipped"
    """It could not be told: what it needs is missing, or there is nothing to try it on."""
    WARNING = "warning"
    """It works, and somebody should know."""
    FAILED = "failed"
    """A process would not start, or would not do its work."""


class Process(StrEnum):
    """For whose environment the checks are made."""

    WORKER = "worker"
    API = "api"
    MIGRATE = "migrate"
    CODEC = "codec"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One line of the report."""

    check: str
    """Its name: subject and matter, `database.schema`."""
    status: Status
    message: str
    """What was seen; of a failure, the cause."""
    remedy: str = ""
    variables: tuple[str, ...] = ()
    """The settings that it is about."""


def ok(check: str, message: str) -> Finding:
    """All is well."""
    return Finding(check=check, status=Status.OK, message=message)


def skipped(check: str, message: str) -> Finding:
    """It could not be told."""
    return Finding(check=check, status=Status.SKIPPED, message=message)


def warning(check: str, message: str, remedy: str, *variables: str) -> Finding:
    """It works, but."""
    return Finding(check=check, status=Status.WARNING, message=message, remedy=remedy, variables=variables)


def failed(check: str, message: str, remedy: str, *variables: str) -> Finding:
    """It does not work."""
    return Finding(check=check, status=Status.FAILED, message=message, remedy=remedy, variables=variables)


def clock_skew_seconds(theirs: datetime, before: datetime, after: datetime) -> float:
    """How far a clock is ahead that said this at some time in between; what may be the way is left out."""
    if theirs > after:
        return (theirs - after).total_seconds()
    return min((theirs - before).total_seconds(), 0.0)


def healthy(findings: Iterable[Finding]) -> bool:
    """Whether nothing failed; warnings are no failures."""
    return all(finding.status is not Status.FAILED for finding in findings)


def summary(findings: Iterable[Finding]) -> str:
    """The report in numbers: `24 ok, 1 warning, 2 failed`."""
    counts = Counter(finding.status for finding in findings)
    return ", ".join(f"{counts[status]} {status}" for status in Status if counts[status])


def without_secrets(findings: Iterable[Finding], secrets: Iterable[str]) -> list[Finding]:
    """The same, with each of the secrets blotted out: a server's error may quote what it was given."""
    longest_first: Sequence[str] = sorted({each for each in secrets if each}, key=len, reverse=True)

    def blotted(text: str) -> str:
        for secret in longest_first:
            text = text.replace(secret, "***")
        return text

    # Remedies are our own words.
    return [replace(finding, message=blotted(finding.message)) for finding in findings]
