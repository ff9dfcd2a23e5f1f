"""Findings of checks, and the report made from them."""

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum


class Status(StrEnum):
    """The result of a check."""

    OK = "ok"
    SKIPPED = "skipped"
    """The check could not run: a prerequisite is missing, or there is nothing to test with."""
    WARNING = "warning"
    """It works, with a problem that an operator should know."""
    FAILED = "failed"
    """A process would not start or not work."""


class Process(StrEnum):
    """The process whose environment is checked."""

    WORKER = "worker"
    API = "api"
    MIGRATE = "migrate"
    CODEC = "codec"


LABELS = {Status.OK: "ok", Status.SKIPPED: "skipped", Status.WARNING: "warning", Status.FAILED: "FAILED"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One entry of the report."""

    check: str
    """Name of the check, as `subject.matter`: `database.schema`."""
    status: Status
    message: str
    """What was observed; for a failure, its cause."""
    remedy: str = ""
    variables: tuple[str, ...] = ()
    """The settings that the finding concerns."""


def ok(check: str, message: str) -> Finding:
    """A finding with status ok."""
    return Finding(check=check, status=Status.OK, message=message)


def skipped(check: str, message: str) -> Finding:
    """A finding of a check that could not run."""
    return Finding(check=check, status=Status.SKIPPED, message=message)


def warning(check: str, message: str, remedy: str, *variables: str) -> Finding:
    """A finding with status warning."""
    return Finding(check=check, status=Status.WARNING, message=message, remedy=remedy, variables=variables)


def failed(check: str, message: str, remedy: str, *variables: str) -> Finding:
    """A finding with status failed."""
    return Finding(check=check, status=Status.FAILED, message=message, remedy=remedy, variables=variables)


def clock_skew_seconds(theirs: datetime, before: datetime, after: datetime) -> float:
    """How far a clock that was read between `before` and `after` is ahead, without network latency."""
    if theirs > after:
        return (theirs - after).total_seconds()
    return min((theirs - before).total_seconds(), 0.0)


def healthy(findings: Iterable[Finding]) -> bool:
    """Whether no check failed; warnings do not count."""
    return all(finding.status is not Status.FAILED for finding in findings)


def summary(findings: Iterable[Finding]) -> str:
    """The counts of the report: `24 ok, 1 warning, 2 failed`."""
    counts = Counter(finding.status for finding in findings)
    return ", ".join(f"{counts[status]} {status}" for status in Status if counts[status])


def without_secrets(findings: Iterable[Finding], secrets: Iterable[str]) -> list[Finding]:
    """The findings with secrets masked in their messages: a server's error may quote its input."""
    longest_first: Sequence[str] = sorted({each for each in secrets if each}, key=len, reverse=True)

    def mask(text: str) -> str:
        for secret in longest_first:
            text = text.replace(secret, "***")
        return text

    # Remedies contain no text of a server.
    return [replace(finding, message=mask(finding.message)) for finding in findings]


def as_text(findings: Sequence[Finding]) -> str:
    """The report as text: one line per check, with the remedy on the next line."""
    width = max((len(finding.check) for finding in findings), default=0)
    lines: list[str] = []
    for finding in findings:
        lines.append(f"{LABELS[finding.status]:<8} {finding.check:<{width}}  {finding.message}")
        if finding.remedy:
            lines.append(f"{'':<8} {'':<{width}}  → {finding.remedy}")
    return "\n".join([*lines, "", summary(findings)]) + "\n"


def as_json(findings: Sequence[Finding]) -> str:
    """The report as JSON."""
    document = {
        "healthy": healthy(findings),
        "findings": [
            {
                "check": finding.check,
                "status": finding.status.value,
                "message": finding.message,
                "remedy": finding.remedy,
                "variables": list(finding.variables),
            }
            for finding in findings
        ],
    }
    return json.dumps(document, indent=2) + "\n"
