"""The outcome of the incident under each control plane, as tables and goals."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from bench.parts.results import Figure, Goal, Result, Table

FLEET = 100
"""Number of workspaces for the monthly cost, as in docs/cost.md."""

USD_PER_MILLION_ACTIONS = 50.0
"""The example price of docs/cost.md, as of November 2026."""

MONTH_SECONDS, BEAT_SECONDS = 2_592_000, 30
"""A month, and the product's default interval; the alternative designs use the same."""


@dataclass(slots=True, kw_only=True)
class WorkspaceResult:
    """The outcome for one workspace."""

    needed: int
    """Launches after the first box that the fault makes necessary."""
    launches: int
    """Launches after the first box."""
    after_late: int
    """Launches caused by late requests; none is needed."""
    most_alive: int
    """Maximum of concurrent boxes; one is allowed."""
    unauthorized: int
    """Boxes that run after everything has settled and whose heartbeats are answered with 401: permanently,
    unless someone requests a restart."""
    serving: int
    """Boxes that run at the end and whose heartbeats are accepted."""
    lost: int
    """Requests without a recorded outcome."""
    seconds: float | None
    """Seconds from the requests until one new box alone sends heartbeats; None if that did not happen."""


@dataclass(slots=True, kw_only=True)
class ControlPlaneResult:
    """The outcomes of one control plane, by fault."""

    seen: dict[str, list[WorkspaceResult]] = field(default_factory=dict)
    events_per_heartbeat: float = 0.0
    actions_per_heartbeat: float = 0.0


def result_of(
    outcomes: Mapping[str, ControlPlaneResult], *, faults: Sequence[str], work: str, rounds_cost: float
) -> Result:
    """Return the result; `faults` in order, `rounds_cost` in actions per month for the whole fleet."""
    ours = outcomes["Onebox"]
    alternatives = [outcome for name, outcome in outcomes.items() if name != "Onebox"]
    return Result(
        name="incident",
        title="The incident and alternative designs",
        work=work,
        against=(
            "Designs that a competent team could build (bench/alternatives): a workflow per "
            "workspace with heartbeats as signals, and a lock row with a cron loop of two "
            "replicas. They run at the same time on the same Temporal, PostgreSQL, AWS endpoint "
            "and box host. The product's own boxes run its box script before the runtime, which "
            "is part of the product."
        ),
        tables=(
            Table(
                title="Results, summed over the rounds",
                head=(
                    "fault",
                    "control plane",
                    "launches needed",
                    "launched",
                    "launched by late requests",
                    "concurrent boxes",
                    "stuck at 401",
                    "serving at the end",
                    "requests without outcome",
                    "one box after",
                ),
                rows=tuple(
                    _row(fault, name, outcome.seen[fault])
                    for fault in faults
                    for name, outcome in outcomes.items()
                ),
            ),
            Table(
                title=(
                    f"What {FLEET} healthy workspaces cost in Temporal per month, with a heartbeat every "
                    f"{BEAT_SECONDS} s and {USD_PER_MILLION_ACTIONS:g} USD per million actions"
                ),
                head=("control plane", "events per heartbeat", "events", "actions", "USD"),
                rows=tuple(
                    _month(name, outcome, rounds=rounds_cost if outcome is ours else 0.0)
                    for name, outcome in outcomes.items()
                ),
            ),
        ),
        figures=(Figure(name="monthly actions of Onebox's rounds for the whole fleet", value=rounds_cost),),
        goals=(
            Goal(text="Onebox: unneeded launches", seen=_unneeded(ours), relation="==", limit=0),
            Goal(
                text="Onebox: concurrent boxes of a workspace, maximum",
                seen=_most(ours),
                relation="==",
                limit=1,
            ),
            Goal(text="Onebox: boxes stuck at 401", seen=_unauthorized(ours), relation="==", limit=0),
            Goal(text="Onebox: requests without an outcome", seen=_lost(ours), relation="==", limit=0),
            Goal(
                text="alternatives: unneeded launches (minimum)",
                seen=min(map(_unneeded, alternatives)),
                relation=">",
                limit=0,
            ),
            Goal(
                text="alternatives: boxes stuck at 401 (minimum)",
                seen=min(map(_unauthorized, alternatives)),
                relation=">",
                limit=0,
            ),
        ),
    )


def _row(fault: str, name: str, seen: list[WorkspaceResult]) -> tuple[str, ...]:
    times = [each.seconds for each in seen if each.seconds is not None]
    again = f"{max(times):.1f} s worst case" if times else "never"
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


def _month(name: str, outcome: ControlPlaneResult, *, rounds: float) -> tuple[str, ...]:
    """Return the cost of a healthy fleet; `rounds` are actions for the whole fleet."""
    heartbeats = FLEET * MONTH_SECONDS / BEAT_SECONDS
    actions = outcome.actions_per_heartbeat * heartbeats + rounds
    return (
        name,
        f"{outcome.events_per_heartbeat:.2f}",
        f"{outcome.events_per_heartbeat * heartbeats:,.0f}",
        f"{actions:,.0f}",
        f"{actions * USD_PER_MILLION_ACTIONS / 1e6:,.0f}",
    )


def _all(outcome: ControlPlaneResult) -> list[WorkspaceResult]:
    return [each for listed in outcome.seen.values() for each in listed]


def _unneeded(outcome: ControlPlaneResult) -> int:
    return sum(each.launches - each.needed + each.after_late for each in _all(outcome))


def _most(outcome: ControlPlaneResult) -> int:
    return max(each.most_alive for each in _all(outcome))


def _unauthorized(outcome: ControlPlaneResult) -> int:
    return sum(each.unauthorized for each in _all(outcome))


def _lost(outcome: ControlPlaneResult) -> int:
    return sum(each.lost for each in _all(outcome))
