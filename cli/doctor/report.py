"""The report for people and for machines.

It decides nothing.
"""

import json
from collections.abc import Sequence

from cli.doctor.model import Finding, Status, healthy, summary

LABELS = {Status.OK: "ok", Status.SKIPPED: "skipped", Status.WARNING: "warning", Status.FAILED: "FAILED"}


def as_text(findings: Sequence[Finding]) -> str:
    """One line for each check; what is not well has its remedy below."""
    width = max((len(finding.check) for finding in findings), default=0)
    lines: list[str] = []
    for finding in findings:
        lines.append(f"{LABELS[finding.status]:<8} {finding.check:<{width}}  {finding.message}")
        if finding.remedy:
            lines.append(f"{'':<8} {'':<{width}}  → {finding.remedy}")
    return "\n".join([*lines, "", summary(findings)]) + "\n"


def as_json(findings: Sequence[Finding]) -> str:
    """The same, for a machine."""
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
