"""Reads the table in docs/cost.md."""

import re
from dataclasses import dataclass

from tests.deploy.policy import ROOT


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """The cost of one operation."""

    events: int
    actions: int
    calls: int
    """Calls to AWS."""


def documented() -> dict[str, Cost]:
    """The measured rows of docs/cost.md, by their first cell."""
    page = (ROOT / "docs" / "cost.md").read_text()
    rows = re.findall(r"^\| ([a-z][^|]*?) \| (\d+) \| (\d+) \| (\d+) \|$", page, re.MULTILINE)
    return {
        name: Cost(events=int(events), actions=int(actions), calls=int(calls))
        for name, events, actions, calls in rows
    }
