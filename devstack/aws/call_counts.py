"""How often each AWS action was asked for, and for which workspace: reads and dry runs as well.

It counts requests, whatever came of them; what was done is in the journal.
"""

from collections import Counter
from dataclasses import dataclass, field

WORKSPACE_UNKNOWN = ""


@dataclass(slots=True)
class CallCounts:
    """The counts of one endpoint. Its callers hold the cloud's lock."""

    counts: Counter[tuple[str, str]] = field(default_factory=Counter)
    """By action, as IAM names it, and workspace."""

    def add(self, action: str, workspace: str | None) -> None:
        """Count one request."""
        self.counts[action, workspace or WORKSPACE_UNKNOWN] += 1

    def of(self, workspace: str | None = None) -> dict[str, int]:
        """How often each action was asked for, for one workspace or altogether."""
        summed = Counter[str]()
        for (action, whose), number in self.counts.items():
            if workspace is None or workspace == whose:
                summed[action] += number
        return dict(sorted(summed.items()))
