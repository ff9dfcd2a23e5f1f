"""The result of a run as a table and as JSON. Pure functions of values."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from math import ceil

from faults.fault_kinds import KINDS, Kind
from faults.invariants.evidence import Violation


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundResult:
    """The result of one round."""

    number: int
    effective: Mapping[str, int]
    """Faults that had an observable effect, by kind."""
    ineffective: Mapping[str, int]
    """Faults without an observable effect, by kind; they do not count."""
    settled_after: float | None
    """Seconds from the end of the last fault until everything settled; None on timeout."""
    online: int
    stopped: int
    deleted: int
    held_back: int
    """Workspaces that wait for an operator: budget exhausted, repeated failures, backoff."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSummary:
    """The result of a run."""

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
    """Runs stuck on non-determinism that automatic repair reset."""
    evidence: Mapping[str, int]
    """Amount of evidence of each sort; without evidence, an invariant was not checked."""
    violations: tuple[Violation, ...] = field(default=())

    @property
    def faults(self) -> Counter[str]:
        """Effective faults, by kind."""
        total: Counter[str] = Counter()
        for each in self.rounds:
            total.update(each.effective)
        return total

    @property
    def settling(self) -> list[float]:
        """The settling times, sorted."""
        return sorted(each.settled_after for each in self.rounds if each.settled_after is not None)

    @property
    def passed(self) -> bool:
        """Whether all invariants held."""
        return not self.violations


def percentile(values: Sequence[float], share: float) -> float:
    """Return the smallest value that is at least this share of the sorted values; 0 without values."""
    return values[max(0, ceil(share * len(values)) - 1)] if values else 0.0


def summary(tally: RunSummary) -> list[tuple[str, str]]:
    """Return the table's upper part as pairs of name and value."""
    faults, settling = tally.faults, tally.settling
    held_back = sum(each.held_back for each in tally.rounds)
    return [
        ("seed", str(tally.seed)),
        ("rounds", f"{len(tally.rounds)} in {tally.minutes:.1f} min"),
        (
            "effective faults",
            f"{faults.total()} of {len(faults)} kinds, the rarest {min(faults.values(), default=0)}×",
        ),
        ("requests", f"{sum(tally.requests.values())} of {len(tally.requests)} kinds"),
        ("outcomes", ", ".join(f"{number} {name}" for name, number in sorted(tally.outcomes.items()))),
        ("recreates", str(tally.recreates)),
        ("delegations", ", ".join(f"{number} {name}" for name, number in sorted(tally.delegations.items()))),
        ("held back", f"{held_back} (budget exhausted, repeated failures, backoff)"),
        ("reset by repair", str(tally.reset)),
        ("evidence", ", ".join(f"{number} {name}" for name, number in tally.evidence.items())),
        (
            "time to settle",
            f"p50 {percentile(settling, 0.5):.1f} s, p99 {percentile(settling, 0.99):.1f} s,"
            f" worst {settling[-1] if settling else 0.0:.1f} s (limit {tally.settle_limit:g} s)",
        ),
        ("violations", str(len(tally.violations))),
    ]


def by_kind(tally: RunSummary, kinds: Sequence[Kind] = KINDS) -> list[tuple[str, int, int]]:
    """Return each kind with the number of its effective and ineffective faults."""
    ineffective: Counter[str] = Counter()
    for each in tally.rounds:
        ineffective.update(each.ineffective)
    return [(kind.name, tally.faults[kind.name], ineffective[kind.name]) for kind in kinds]


def table(tally: RunSummary) -> str:
    """Return the table as text."""
    lines = [f"{name:<24}{value}" for name, value in summary(tally)]
    lines += ["", f"{'fault':<28}{'effective':>6}{'ineffective':>8}"]
    lines += [f"{name:<28}{effective:>6}{ineffective:>8}" for name, effective, ineffective in by_kind(tally)]
    for violation in tally.violations:
        lines += ["", f"VIOLATION {violation.invariant} {violation.workspace}: {violation.what}"]
        lines += [f"    {line}" for line in violation.timeline]
    return "\n".join(lines)


def as_json(tally: RunSummary) -> dict[str, object]:
    """Return everything, for machines."""
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
