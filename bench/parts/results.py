"""The results of a run as values and as JSON."""

from collections.abc import Sequence
from statistics import median
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Relation = Literal["<", "<=", ">", ">=", "=="]


class _Value(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Spread(_Value):
    """Minimum, median and maximum of the measured values."""

    least: float
    median: float
    most: float


class Comparison(_Value):
    """Alternating measurements of two sides (A B A B …) in the same run."""

    name: str
    unit: str
    ours: str
    """Name of A."""
    theirs: str
    """Name of B."""
    rounds: Annotated[tuple[tuple[float, float], ...], Field(min_length=1)]
    """A and B of each round."""

    @property
    def ratio(self) -> Spread:
        """A divided by B, per round."""
        return spread([ours / theirs for ours, theirs in self.rounds])

    @property
    def of_ours(self) -> Spread:
        """Values of A."""
        return spread([ours for ours, _ in self.rounds])

    @property
    def of_theirs(self) -> Spread:
        """Values of B."""
        return spread([theirs for _, theirs in self.rounds])


class Figure(_Value):
    """One number without a comparison."""

    name: str
    value: float
    unit: str = ""


class Line(_Value):
    """Growth of a value with the number of workspaces."""

    name: str
    unit: str
    points: Annotated[tuple[tuple[int, float], ...], Field(min_length=1)]
    """Number of workspaces, and the value."""


class Goal(_Value):
    """A goal and the measured value."""

    text: str
    seen: float
    relation: Relation
    limit: float
    unit: str = ""

    @property
    def met(self) -> bool:
        """Whether the goal is met."""
        match self.relation:
            case "<":
                return self.seen < self.limit
            case "<=":
                return self.seen <= self.limit
            case ">":
                return self.seen > self.limit
            case ">=":
                return self.seen >= self.limit
            case "==":
                return self.seen == self.limit


class Profile(_Value):
    """Shares of time, the largest first."""

    of: str
    """Subject and method of the profile."""
    shares: tuple[tuple[str, float], ...]
    """A part and its share in percent."""


class Table(_Value):
    """A table of results."""

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


class Result(_Value):
    """The result of one benchmark."""

    name: str
    """Short name, for files."""
    title: str
    work: str
    """The work, in enough detail to repeat it."""
    against: str
    """The baselines, and why the comparison is fair."""
    comparisons: tuple[Comparison, ...] = ()
    figures: tuple[Figure, ...] = ()
    lines: tuple[Line, ...] = ()
    goals: tuple[Goal, ...] = ()
    profiles: tuple[Profile, ...] = ()
    """Explanation of missed goals, and possible changes."""
    tables: tuple[Table, ...] = ()
    notes: tuple[str, ...] = ()


class Report(_Value):
    """One run."""

    size: str
    machine: dict[str, str]
    minutes: float
    results: tuple[Result, ...]

    @property
    def goals(self) -> list[tuple[Result, Goal]]:
        """All goals with their results."""
        return [(result, goal) for result in self.results for goal in result.goals]


def spread(values: Sequence[float]) -> Spread:
    """Return the spread of one or more values. Raises `ValueError` for none."""
    return Spread(least=min(values), median=median(values), most=max(values))


def percentile(values: Sequence[float], share: float) -> float:
    """Return the smallest value that is at least this share (0 to 1). Raises `ValueError` for none."""
    if not values:
        raise ValueError("percentile of an empty sequence")
    ordered = sorted(values)
    return ordered[max(0, -int(-share * len(ordered) // 1) - 1)]
