"""What a run of the benchmarks found, as values, and as JSON. It measures and judges nothing itself."""

from collections.abc import Sequence
from statistics import median
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Relation = Literal["<", "<=", ">", ">=", "=="]


class _Value(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Spread(_Value):
    """The least, the median and the most of what was measured."""

    least: float
    median: float
    most: float


class Comparison(_Value):
    """One thing measured on both sides in turn (A B A B …), in the same run."""

    name: str
    unit: str
    ours: str
    """What A is."""
    theirs: str
    """What B is."""
    rounds: Annotated[tuple[tuple[float, float], ...], Field(min_length=1)]
    """A and B of each round."""

    @property
    def ratio(self) -> Spread:
        """A by B, round by round."""
        return spread([ours / theirs for ours, theirs in self.rounds])

    @property
    def of_ours(self) -> Spread:
        """A."""
        return spread([ours for ours, _ in self.rounds])

    @property
    def of_theirs(self) -> Spread:
        """B."""
        return spread([theirs for _, theirs in self.rounds])


class Figure(_Value):
    """One number that has no rival."""

    name: str
    value: float
    unit: str = ""


class Line(_Value):
    """How something grows with the number of workspaces."""

    name: str
    unit: str
    points: Annotated[tuple[tuple[int, float], ...], Field(min_length=1)]
    """Workspaces, and the value there."""


class Goal(_Value):
    """A goal, and what was seen of it."""

    text: str
    seen: float
    relation: Relation
    limit: float
    unit: str = ""

    @property
    def met(self) -> bool:
        """Whether it is."""
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
    """Where time goes: shares of it, the largest first."""

    of: str
    """Of what, and how it was taken."""
    shares: tuple[tuple[str, float], ...]
    """A part, and its share in percent."""


class Table(_Value):
    """Rows of words and numbers that are no comparison of two."""

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


class Result(_Value):
    """One benchmark."""

    name: str
    """Short, for files."""
    title: str
    work: str
    """What is done, so that someone else could do it."""
    against: str
    """The ceilings or rivals, and what makes them fair."""
    comparisons: tuple[Comparison, ...] = ()
    figures: tuple[Figure, ...] = ()
    lines: tuple[Line, ...] = ()
    goals: tuple[Goal, ...] = ()
    profiles: tuple[Profile, ...] = ()
    """What explains a goal that is not met, and what would have to change."""
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
        """All of them, with whose they are."""
        return [(result, goal) for result in self.results for goal in result.goals]


def spread(values: Sequence[float]) -> Spread:
    """Of one value at least. Raises `ValueError` for none."""
    return Spread(least=min(values), median=median(values), most=max(values))


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that so many of them (0 to 1) don't exceed. Raises `ValueError` for none."""
    if not values:
        raise ValueError("there is no percentile of nothing")
    ordered = sorted(values)
    return ordered[max(0, -int(-share * len(ordered) // 1) - 1)]
