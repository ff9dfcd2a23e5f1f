"""Number of requests per AWS action and workspace, including reads and dry runs.

Counts requests regardless of their result; the journal records effects.
"""

from collections import Counter
from dataclasses import dataclass, field

WORKSPACE_UNKNOWN = ""


@dataclass(slots=True)
class CallCounts:
    """The counts of one endpoint. Callers hold the cloud's lock."""

    counts: Counter[tuple[str, str]] = field(default_factory=Counter)
    """By action, as IAM names it, and workspace."""

    def add(self, action: str, workspace: str | None) -> None:
        """Count one request."""
        self.counts[action, workspace or WORKSPACE_UNKNOWN] += 1

    def of(self, workspace: str | None = None) -> dict[str, int]:
        """Return the count of each action, for one workspace or for all."""
        summed = Counter[str]()
        for (action, whose), number in self.counts.items():
            if workspace is None or workspace == whose:
                summed[action] += number
        return dict(sorted(summed.items()))
