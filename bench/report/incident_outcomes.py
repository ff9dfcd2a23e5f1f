"""What became of the incident under each control plane, as tables and goals. It looks at nothing itself."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from bench.parts.results import Figure, Goal, Result, Table

FLEET = 100
"""Workspaces of which a month's cost is told, as in docs/cost.md."""

USD_PER_MILLION_ACTIONS = 50.0
"""The example of docs/cost.md, of November 2026."""

MONTH_SECONDS, BEAT_SECONDS = 2_592_000, 30
"""A month, and the product's default: the rivals beat as often."""


@dataclass(slots=True, kw_only=True)
class WorkspaceResult:
    """What became of one workspace."""

    needed: int
    """Launches after the first box that the fault makes necessary."""
    launches: int
    """Launches after the first box."""
    after_late: int
    """Launches that late requests caused, of which none is needed."""
    most_alive: int
    """Boxes at the same time, of which one may be."""
    unauthorized: int
    """Boxes that run when nothing moves any more, before or after the late requests, and whose beats are
    answered with 401: for good, unless somebody asks for a restart."""
    serving: int
    """Boxes that run at the end, and whose beats are taken."""
    lost: int
    """Requests without an outcome on record."""
    seconds: float | None
    """From the requests until one new box beat, alone; none: it did not come to that."""


@dataclass(slots=True, kw_only=True)
class ControlPlaneResult:
    """What one control plane lived through, by fault."""

    seen: dict[str, list[WorkspaceResult]] = field(default_factory=dict)
    events_per_beat: float = 0.0
    actions_per_beat: float = 0.0


def result_of(
    tales: Mapping[str, ControlPlaneResult], *, faults: Sequence[str], work: str, rounds_cost: float
) -> Result:
    """The result; `faults` in their order, `rounds_cost` in actions a month for the whole fleet."""
    ours = tales["Onebox"]
    rivals = [tale for name, tale in tales.items() if name != "Onebox"]
    return Result(
        name="incident",
        title="The incident, and rivals",
        work=work,
        against=(
            "What a competent team would build (bench/rivals): a workflow per workspace with beats as its "
            "signals, and a lock row with a cron loop of two replicas. At the same time, on the same "
            "Temporal, PostgreSQL, AWS endpoint and box host. The product's own boxes run its box script "
            "before the runtime, which is part of the product."
        ),
        tables=(
            Table(
                title="What became of it, added up over the rounds",
                head=(
                    "fault",
                    "control plane",
                    "launches needed",
                    "launched",
                    "launched by late requests",
                    "boxes alive at once",
                    "stuck at 401",
                    "serving at the end",
                    "requests without outcome",
                    "one box again after",
                ),
                rows=tuple(
                    _row(fault, name, tale.seen[fault]) for fault in faults for name, tale in tales.items()
                ),
            ),
            Table(
                title=(
                    f"What {FLEET} healthy workspaces cost in Temporal in a month, at a beat every "
                    f"{BEAT_SECONDS} s and {USD_PER_MILLION_ACTIONS:g} USD for a million actions"
                ),
                head=("control plane", "events per beat", "events", "actions", "USD"),
                rows=tuple(
                    _month(name, tale, rounds=rounds_cost if tale is ours else 0.0)
                    for name, tale in tales.items()
                ),
            ),
        ),
        figures=(Figure(name="actions of Onebox's rounds for the whole fleet, a month", value=rounds_cost),),
        goals=(
            Goal(text="Onebox: launches that were not needed", seen=_unneeded(ours), relation="==", limit=0),
            Goal(
                text="Onebox: boxes of a workspace alive at once, at most",
                seen=_most(ours),
                relation="==",
                limit=1,
            ),
            Goal(text="Onebox: boxes stuck at 401", seen=_unauthorized(ours), relation="==", limit=0),
            Goal(text="Onebox: requests without an outcome", seen=_lost(ours), relation="==", limit=0),
            Goal(
                text="rivals: launches that were not needed (the least of them)",
                seen=min(map(_unneeded, rivals)),
                relation=">",
                limit=0,
            ),
            Goal(
                text="rivals: boxes stuck at 401 (the least of them)",
                seen=min(map(_unauthorized, rivals)),
                relation=">",
                limit=0,
            ),
        ),
    )


def _row(fault: str, name: str, seen: list[WorkspaceResult]) -> tuple[str, ...]:
    times = [each.seconds for each in seen if each.seconds is not None]
    again = f"{max(times):.1f} s at worst" if times else "never"
    missed = f", {len(seen) - len(times)} never" if times and len(times) < len(seen) else ""
    return (
        fault,
        name,
        str(sum(each.needed for each in seen)),
        str(sum(each.launches for each in seen)),
        str(sum(each.after_late for each in seen)),
        f"≤ {max(each.most_alive for each in seen)}",
        str(sum(each.unauthorized for each in seen)),
        f"{sum(each.serving for each in seen)} of {len(seen)}",
        str(sum(each.lost for each in seen)),
        again + missed,
    )


def _month(name: str, tale: ControlPlaneResult, *, rounds: float) -> tuple[str, ...]:
    """What a fleet that is healthy costs; `rounds` are actions for the whole of it."""
    beats = FLEET * MONTH_SECONDS / BEAT_SECONDS
    actions = tale.actions_per_beat * beats + rounds
    return (
        name,
        f"{tale.events_per_beat:.2f}",
        f"{tale.events_per_beat * beats:,.0f}",
        f"{actions:,.0f}",
        f"{actions * USD_PER_MILLION_ACTIONS / 1e6:,.0f}",
    )


def _all(tale: ControlPlaneResult) -> list[WorkspaceResult]:
    return [each for listed in tale.seen.values() for each in listed]


def _unneeded(tale: ControlPlaneResult) -> int:
    return sum(each.launches - each.needed + each.after_late for each in _all(tale))


def _most(tale: ControlPlaneResult) -> int:
    return max(each.most_alive for each in _all(tale))


def _unauthorized(tale: ControlPlaneResult) -> int:
    return sum(each.unauthorized for each in _all(tale))


def _lost(tale: ControlPlaneResult) -> int:
    return sum(each.lost for each in _all(tale))
