"""The outcome of a campaign as numbers: the table, the JSON. Pure: functions of values."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from math import ceil

from faults.fault_kinds import KINDS, Kind
from faults.invariants.evidence import Violation


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundResult:
    """One round, as it went."""

    number: int
    effective: Mapping[str, int]
    """Faults that somebody met, by kind."""
    ineffective: Mapping[str, int]
    """Faults that were begun and that nobody met; they count for nothing."""
    settled_after: float | None
    """Seconds from the end of the last fault until all was at rest; None if it was not in time."""
    online: int
    stopped: int
    deleted: int
    held_back: int
    """Left to a human, by the rules: budget spent, failed alike, spacing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSummary:
    """A campaign's outcome."""

    seed: int
    machine: str
    minutes: float
    settle_limit: float
    rounds: tuple[RoundResult, ...]
    requests: Mapping[str, int]
    outcomes: Mapping[str, int]
    recreates: int
    """Generations after the first."""
    delegations: Mapping[str, int]
    """By state."""
    reset: int
    """Runs that no replay could go on with, and that the rescue reset."""
    evidence: Mapping[str, int]
    """How much of each sort was judged: a judge who saw nothing has nothing to say."""
    violations: tuple[Violation, ...] = field(default=())

    @property
    def faults(self) -> Counter[str]:
        """Faults that were felt, by kind."""
        total: Counter[str] = Counter()
        for each in self.rounds:
            total.update(each.effective)
        return total

    @property
    def settling(self) -> list[float]:
        """The times to settle, sorted."""
        return sorted(each.settled_after for each in self.rounds if each.settled_after is not None)

    @property
    def passed(self) -> bool:
        """Whether all invariants held."""
        return not self.violations


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that so many of the sorted values don't exceed; 0 of none."""
    return values[max(0, ceil(share * len(values)) - 1)] if values else 0.0


def summary(tally: RunSummary) -> list[tuple[str, str]]:
    """The table's upper part: a name and a value each."""
    faults, settling = tally.faults, tally.settling
    held_back = sum(each.held_back for each in tally.rounds)
    return [
        ("seed", str(tally.seed)),
        ("rounds", f"{len(tally.rounds)} in {tally.minutes:.1f} min"),
        (
            "faults felt",
            f"{faults.total()} of {len(faults)} kinds, the rarest {min(faults.values(), default=0)}×",
        ),
        ("requests", f"{sum(tally.requests.values())} of {len(tally.requests)} kinds"),
        ("outcomes", ", ".join(f"{number} {name}" for name, number in sorted(tally.outcomes.items()))),
        ("recreates", str(tally.recreates)),
        ("delegations", ", ".join(f"{number} {name}" for name, number in sorted(tally.delegations.items()))),
        ("left to a human", f"{held_back} (budget spent, failed alike, spacing)"),
        ("taken up by the rescue", str(tally.reset)),
        ("evidence", ", ".join(f"{number} {name}" for name, number in tally.evidence.items())),
        (
            "time to settle",
            f"p50 {percentile(settling, 0.5):.1f} s, p99 {percentile(settling, 0.99):.1f} s,"
            f" worst {settling[-1] if settling else 0.0:.1f} s (limit {tally.settle_limit:g} s)",
        ),
        ("violations", str(len(tally.violations))),
    ]


def by_kind(tally: RunSummary, kinds: Sequence[Kind] = KINDS) -> list[tuple[str, int, int]]:
    """Each kind with how often it was felt, and how often it was not."""
    unfelt: Counter[str] = Counter()
    for each in tally.rounds:
        unfelt.update(each.ineffective)
    return [(kind.name, tally.faults[kind.name], unfelt[kind.name]) for kind in kinds]


def table(tally: RunSummary) -> str:
    """The table as text."""
    lines = [f"{name:<24}{value}" for name, value in summary(tally)]
    lines += ["", f"{'fault':<28}{'felt':>6}{'unfelt':>8}"]
    lines += [f"{name:<28}{felt:>6}{unfelt:>8}" for name, felt, unfelt in by_kind(tally)]
    for violation in tally.violations:
        lines += ["", f"VIOLATION {violation.invariant} {violation.workspace}: {violation.what}"]
        lines += [f"    {line}" for line in violation.timeline]
    return "\n".join(lines)


def as_json(tally: RunSummary) -> dict[str, object]:
    """All of it, for machines."""
    settling = tally.settling
    return asdict(tally) | {
        "passed": tally.passed,
        "faults": dict(tally.faults),
        "settle": {
            "p50": percentile(settling, 0.5),
            "p99": percentile(settling, 0.99),
            "worst": settling[-1] if settling else None,
        },
    }
