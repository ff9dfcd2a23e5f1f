"""What generations took and cost, as a result. It measures nothing itself."""

from collections import Counter
from dataclasses import dataclass, field

from bench.parts import statements
from bench.parts.results import Comparison, Figure, Goal, Line, Profile, Result, Table

EVENTS, OWN_SECONDS, MADE_TWICE = 60, 1.0, 0
"""The goals: history events of a generation, its time, and calls made twice."""

READS = ("Describe", "List", "Get")
"""How calls begin that change nothing."""


@dataclass(slots=True)
class Cost:
    """What one generation cost."""

    kinds: Counter[str] = field(default_factory=Counter)
    actions: int = 0
    calls: Counter[str] = field(default_factory=Counter)

    def since(self, before: "Cost") -> "Cost":
        """What was added."""
        return Cost(
            kinds=self.kinds - before.kinds,
            actions=self.actions - before.actions,
            calls=self.calls - before.calls,
        )

    @property
    def made_twice(self) -> int:
        """Calls that change something, and were made more than once."""
        return sum(number - 1 for name, number in self.calls.items() if not _reads(name))


@dataclass(slots=True)
class Measured:
    """All that was measured."""

    new: list[tuple[float, float]] = field(default_factory=list)
    recreate: list[tuple[float, float]] = field(default_factory=list)
    growth: list[tuple[int, float]] = field(default_factory=list)
    new_cost: Cost = field(default_factory=Cost)
    recreate_cost: Cost = field(default_factory=Cost)
    sent: Counter[str] = field(default_factory=Counter)
    """Statements of the recreate, by who sent them."""
    repeated: Counter[str] = field(default_factory=Counter)
    waits: list[tuple[str, float]] = field(default_factory=list)


def result_of(it: Measured) -> Result:
    """The result."""
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
            f"{len(it.new)} new workspaces, and a recreate of each asked for by the watchdog, one after the "
            "other, under the default policy (a canary for each generation). Instances run and end at once, "
            "boxes register and answer at once: all of the time is the control plane's own. PostgreSQL with "
            "fsync."
        ),
        against=(
            "A script that calls the product's own activities in a row in one process: the same AWS and SQL "
            "calls, no Temporal, no retries, nothing that would go on after a crash. What is above it is "
            "what durability costs."
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
            Figure(name="of these, word for word as one before", value=it.repeated.total()),
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
                text="calls to AWS that change something, made twice",
                seen=it.new_cost.made_twice + it.recreate_cost.made_twice,
                relation="==",
                limit=MADE_TWICE,
            ),
            Goal(
                text="SQL statements of a recreate that write, sent twice word for word",
                seen=sum(number for sql, number in it.repeated.items() if statements.writes(sql)),
                relation="==",
                limit=MADE_TWICE,
            ),
        ),
        profiles=(
            Profile(
                of="the recreate's seconds in Temporal, by its history",
                shares=tuple((name, 100 * seconds / total) for name, seconds in it.waits),
            ),
            Profile(
                of="the recreate's history events, by what they are for",
                shares=tuple(
                    (f"{kind} ({number})", 100 * number / it.recreate_cost.kinds.total())
                    for kind, number in it.recreate_cost.kinds.most_common()
                ),
            ),
        ),
        tables=(
            Table(
                title="Calls to AWS. (Calls that read are repeated by their nature: each looks anew.)",
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
                title="Of these, sent again word for word, with the same parameters",
                head=("statement", "times more"),
                rows=tuple((statements.short(sql), str(number)) for sql, number in it.repeated.most_common()),
            ),
        ),
        notes=(
            "Each activity is three events, and its end three more, of the workflow task that goes on from "
            "there. What a generation cannot do without (the fleet's leave, opening, fence, launch, address, "
            "canary) and what its box tells take some forty; the rest are the writes of the record, one for "
            "each phase that people see. What they are given stands in the history, and `onebox replay` "
            "tells from it: as local activities they would cost one event each, and leave nothing to read. "
            "Asking the fleet, opening the generation and the first of these writes could be one activity.",
        ),
    )


def _reads(call: str) -> bool:
    return call.rpartition(":")[2].startswith(READS)
