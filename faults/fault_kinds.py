"""The kinds of faults and their durations. Standard library only.

`injection` implements them, with `proxies` for the connections and `full_disk` for the disk.
"""

from dataclasses import dataclass
from enum import StrEnum


class Family(StrEnum):
    """Type of fault."""

    KILL = "kill"
    """SIGKILL; the supervisor restarts the part."""
    FREEZE = "freeze"
    """SIGSTOP, later SIGCONT: a process that hangs, or a machine that is migrated."""
    CUT = "cut"
    """All connections are reset, including new ones."""
    SLOW = "slow"
    """Every chunk is delayed."""
    HALF_OPEN = "half_open"
    """Connections stay open and new ones are accepted, but no data passes."""
    AWS = "aws"
    """The AWS endpoint misbehaves."""
    DATABASE = "database"
    """PostgreSQL runs but cannot write."""
    MACHINE = "machine"
    """The hosts of boxes misbehave."""


PARTS = ("worker", "api", "temporal", "postgres", "box")
"""Parts that are killed and frozen."""

WIRES = (
    "worker-temporal",
    "worker-postgres",
    "worker-aws",
    "api-postgres",
    "box-api",
    "worker-box",
)
"""Connections as caller-callee."""

AWS_FAULTS = ("lost_answer", "throttling", "capacity", "empty_list", "late_list", "slow_change")
DATABASE_FAULTS = ("read_only", "disk_full")
MACHINE_FAULTS = ("clock_jump", "disk_full")


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Kind:
    """One kind of fault: its type and its target."""

    family: Family
    what: str

    @property
    def name(self) -> str:
        """Name in reports."""
        return f"{self.family}: {self.what}"


LASTS: dict[Family, tuple[float, float]] = {
    Family.KILL: (0.0, 0.0),
    Family.FREEZE: (1.0, 8.0),
    Family.CUT: (0.5, 5.0),
    Family.SLOW: (3.0, 8.0),
    Family.HALF_OPEN: (2.0, 12.0),
    Family.AWS: (2.0, 6.0),
    Family.DATABASE: (1.0, 5.0),
    Family.MACHINE: (3.0, 6.0),
}
"""Minimum and maximum, in seconds. Longer than call timeouts (10 s) where only a timeout reveals the fault;
shorter than the workflow's deadlines, because missing those leads to a recreate, which is not an error."""

KINDS: tuple[Kind, ...] = (
    *(Kind(family=family, what=part) for family in (Family.KILL, Family.FREEZE) for part in PARTS),
    *(
        Kind(family=family, what=wire)
        for family in (Family.CUT, Family.SLOW, Family.HALF_OPEN)
        for wire in WIRES
    ),
    *(Kind(family=Family.AWS, what=what) for what in AWS_FAULTS),
    *(Kind(family=Family.DATABASE, what=what) for what in DATABASE_FAULTS),
    *(Kind(family=Family.MACHINE, what=what) for what in MACHINE_FAULTS),
)
