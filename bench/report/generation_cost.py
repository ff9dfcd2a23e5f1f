"""Time and cost of generations as a result."""

from collections import Counter
from dataclasses import dataclass, field

from bench.parts import statements
from bench.parts.results import Comparison, Figure, Goal, Line, Profile, Result, Table

EVENTS, OWN_SECONDS, MADE_TWICE = 60, 1.0, 0
"""The goals: history events of a generation, its time, and duplicate calls."""

READS = ("Describe", "List", "Get")
"""Prefixes of read-only calls."""


@dataclass(slots=True)
class Cost:
    """The cost of one generation."""

    kinds: Counter[str] = field(default_factory=Counter)
    actions: int = 0
    calls: Counter[str] = field(default_factory=Counter)

    def since(self, before: "Cost") -> "Cost":
        """Return the difference."""
        return Cost(
            kinds=self.kinds - before.kinds,
            actions=self.actions - before.actions,
            calls=self.calls - before.calls,
        )

    @property
    def made_twice(self) -> int:
        """Return the writing calls made more than once."""
        return sum(number - 1 for name, number in self.calls.items() if not _reads(name))


@dataclass(slots=True)
class Measured:
    """All measured values."""

    new: list[tuple[float, float]] = field(default_factory=list)
    recreate: list[tuple[float, float]] = field(default_factory=list)
    growth: list[tuple[int, float]] = field(default_factory=list)
    new_cost: Cost = field(default_factory=Cost)
    recreate_cost: Cost = field(default_factory=Cost)
    sent: Counter[str] = field(default_factory=Counter)
    """Statements of the recreate, by sender."""
    repeated: Counter[str] = field(default_factory=Counter)
    waits: list[tuple[str, float]] = field(default_factory=list)


def result_of(it: Measured) -> Result:
    """Return the result."""
    recreate = Comparison(
        name="a recreate until online",
        unit="s",
        ours="Onebox",
        theirs="straight-line script",
        rounds=tuple(it.recreate),
    )
    new = Comparison(
        name="a new workspace until online",
        unit="s",
        ours="Onebox",
        theirs="straight-line script",
        rounds=tuple(it.new),
    )
    total = sum(seconds for _, seconds in it.waits) or 1.0
    return Result(
        name="generation",
        title="One generation",
        work=(
            f"{len(it.new)} new workspaces, and a recreate of each requested by the watchdog, in "
            "sequence, under the default policy (a canary per generation). Instances start and "
            "terminate at once, boxes register and answer at once: all of the time is the "
            "control plane's own. PostgreSQL with fsync."
        ),
        against=(
            "A script that calls the product's own activities in sequence in one process: the "
            "same AWS and SQL calls, no Temporal, no retries, no recovery after a crash. The "
            "difference is the cost of durability."
        ),
        comparisons=(new, recreate),
        figures=(
            Figure(name="history events of a new workspace", value=it.new_cost.kinds.total()),
            Figure(name="history events of a recreate", value=it.recreate_cost.kinds.total()),
            Figure(name="Temporal actions of a new workspace", value=it.new_cost.actions),
            Figure(name="Temporal actions of a recreate", value=it.recreate_cost.actions),
            Figure(name="AWS calls of a new workspace", value=it.new_cost.calls.total()),
            Figure(name="AWS calls of a recreate", value=it.recreate_cost.calls.total()),
            Figure(name="SQL statements of a recreate", value=it.sent.total()),
            Figure(name="of these, identical to an earlier one", value=it.repeated.total()),
        ),
        lines=(Line(name="a new workspace until online", unit="s", points=tuple(it.growth)),),
        goals=(
            Goal(
                text="history events of a new workspace",
                seen=it.new_cost.kinds.total(),
                relation="<=",
                limit=EVENTS,
            ),
            Goal(
                text="history events of a recreate",
                seen=it.recreate_cost.kinds.total(),
                relation="<=",
                limit=EVENTS,
            ),
            Goal(
                text="the control plane's share of the time to online, p50",
                seen=max(new.of_ours.median, recreate.of_ours.median),
                relation="<",
                limit=OWN_SECONDS,
                unit="s",
            ),
            Goal(
                text="AWS calls that change something, made twice",
                seen=it.new_cost.made_twice + it.recreate_cost.made_twice,
                relation="==",
                limit=MADE_TWICE,
            ),
            Goal(
                text="writing SQL statements of a recreate, sent twice",
                seen=sum(number for sql, number in it.repeated.items() if statements.writes(sql)),
                relation="==",
                limit=MADE_TWICE,
            ),
        ),
        profiles=(
            Profile(
                of="the recreate's seconds in Temporal, from its history",
                shares=tuple((name, 100 * seconds / total) for name, seconds in it.waits),
            ),
            Profile(
                of="the recreate's history events, by purpose",
                shares=tuple(
                    (f"{kind} ({number})", 100 * number / it.recreate_cost.kinds.total())
                    for kind, number in it.recreate_cost.kinds.most_common()
                ),
            ),
        ),
        tables=(
            Table(
                title="AWS calls. (Reads are repeated on purpose: each reads the current state.)",
                head=("call", "new workspace", "recreate"),
                rows=tuple(
                    (name, str(it.new_cost.calls[name]), str(it.recreate_cost.calls[name]))
                    for name in sorted(it.new_cost.calls | it.recreate_cost.calls)
                ),
            ),
            Table(
                title="SQL statements of the recreate",
                head=("by", "statements"),
                rows=tuple((name, str(number)) for name, number in it.sent.most_common()),
            ),
            Table(
                title="Of these, repeated identically, with the same parameters",
                head=("statement", "repetitions"),
                rows=tuple((statements.short(sql), str(number)) for sql, number in it.repeated.most_common()),
            ),
        ),
        notes=(
            "Each activity is three events, and the workflow task after it three more. The "
            "indispensable activities of a generation (fleet permit, open, fence, launch, "
            "address, canary) and its box's events take some forty; the rest are status writes, "
            "one for each visible phase. The history contains their arguments, which `onebox "
            "replay` shows; as local activities they would cost one event each and leave nothing "
            "to read. The fleet permit, opening the generation and the first status write could "
            "be one activity.",
        ),
    )


def _reads(call: str) -> bool:
    return call.rpartition(":")[2].startswith(READS)
