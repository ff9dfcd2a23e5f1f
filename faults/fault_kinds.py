"""The kinds of faults that the campaign knows, and how long each of them lasts. Standard library only.

How they are brought about is in `processes`, `proxies`, `clouds`, `databases` and `machines`.
"""

from dataclasses import dataclass
from enum import StrEnum


class Family(StrEnum):
    """What is done."""

    KILL = "kill"
    """SIGKILL; what keeps the part up starts it again."""
    FREEZE = "freeze"
    """SIGSTOP, and later SIGCONT: a process that hangs, or a machine that is moved."""
    CUT = "cut"
    """All connections are reset, new ones too."""
    SLOW = "slow"
    """Every chunk is late."""
    HALF_OPEN = "half_open"
    """Connections stay open, new ones are taken, and nothing gets through."""
    AWS = "aws"
    """The AWS endpoint misbehaves."""
    DATABASE = "database"
    """PostgreSQL runs, and can't write."""
    MACHINE = "machine"
    """What ails the machines of boxes."""


PARTS = ("worker", "api", "temporal", "postgres", "box")
"""What is killed and frozen."""

WIRES = (
    "worker-temporal",
    "worker-postgres",
    "worker-aws",
    "api-postgres",
    "box-api",
    "worker-box",
)
"""Who speaks to whom, the one who calls first."""

AWS_FAULTS = ("lost_answer", "throttling", "capacity", "empty_list", "late_list", "slow_change")
DATABASE_FAULTS = ("read_only", "disk_full")
MACHINE_FAULTS = ("clock_jump", "disk_full")


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Kind:
    """One kind of fault: what is done, and to what."""

    family: Family
    what: str

    @property
    def name(self) -> str:
        """As reports have it."""
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
"""From and to, in seconds. Beyond the timeouts of calls (10 s) where a fault can only be noticed by them;
shorter than the deadlines of the lifecycle, since who misses those gets another box, which is no fault."""

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
