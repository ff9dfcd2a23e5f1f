"""docs/performance.md, generated from the results of a run."""

from collections.abc import Callable, Sequence

from bench.parts.results import Comparison, Figure, Goal, Line, Profile, Report, Result, Spread, Table

HEAD = """# Benchmarks

*Generated from `bench/results/{size}.json` by `make bench`; its next run overwrites edits.*

Each benchmark states its work, its baseline, and ratios. Both sides alternate in the same run (A B A B …) for
several rounds; tables show minimum, median and maximum. This run took {minutes:.1f} min.
`make bench SIZE=small` is a smoke test.

**This is a run of the size `{size}`**, on:

{machine}
"""

SMALL = """
> A small run: seconds per side, few rounds, a busy machine. It shows what is measured and that it works.
> Quote figures from `make bench` (size `full`) only.
"""


def page(report: Report, plots: Callable[[Result], Sequence[str]]) -> str:
    """Return the page; `plots` names a result's plots."""
    machine = "\n".join(f"- {name}: {value}" for name, value in report.machine.items())
    parts = [HEAD.format(size=report.size, minutes=report.minutes, machine=machine)]
    if report.size == "small":
        parts.append(SMALL)
    parts.append(_overview(report))
    parts += [_section(result, plots(result)) for result in report.results]
    return "\n".join(part.strip("\n") + "\n" for part in parts)


def _overview(report: Report) -> str:
    rows = [(f"[{result.title}](#{_anchor(result.title)})", *_goal(goal)) for result, goal in report.goals]
    met = sum(goal.met for _, goal in report.goals)
    return (
        f"## Goals\n\nThis run meets {met} of {len(rows)} goals. The profile in its section "
        "explains a missed goal.\n\n" + _table(("benchmark", "goal", "measured", "required", ""), rows)
    )


def _goal(goal: Goal) -> tuple[str, str, str, str]:
    unit = f" {goal.unit}" if goal.unit else ""
    wanted = (
        f"{goal.relation.replace('<=', '≤').replace('>=', '≥').replace('==', '=')} {number(goal.limit)}{unit}"
    )
    return goal.text, f"{number(goal.seen)}{unit}", wanted, "met" if goal.met else "**not met**"


def _section(result: Result, plots: Sequence[str]) -> str:
    parts = [
        f"## {result.title}",
        f"**Work.** {result.work}",
        f"**Baseline.** {result.against}",
    ]
    if result.comparisons:
        parts.append(_comparisons(result.comparisons))
    parts += [_titled(table) for table in result.tables]
    if result.figures:
        parts.append(_table(("figure", "value"), [_figure(each) for each in result.figures]))
    if result.lines:
        parts.append("\n\n".join(_line(line) for line in result.lines))
    parts += [f"![{result.title}](../bench/results/{name})" for name in plots]
    missed = [goal for goal in result.goals if not goal.met]
    if missed and result.profiles:
        parts.append(
            f"**Why {'; '.join(f'“{goal.text}”' for goal in missed)} is not met.** Where the time goes:"
        )
    parts += [_profile(profile) for profile in result.profiles]
    parts += result.notes
    return "\n\n".join(parts)


def _comparisons(comparisons: Sequence[Comparison]) -> str:
    rows = [
        (
            it.name,
            f"{it.ours}: {_spread(it.of_ours)}",
            f"{it.theirs}: {_spread(it.of_theirs)}",
            it.unit,
            f"**{number(it.ratio.median)}** ({number(it.ratio.least)} … {number(it.ratio.most)})",
        )
        for it in comparisons
    ]
    return _table(("measured", "A: median (min … max)", "B: median (min … max)", "unit", "A / B"), rows)


def _spread(it: Spread) -> str:
    return f"{number(it.median)} ({number(it.least)} … {number(it.most)})"


def _figure(figure: Figure) -> tuple[str, str]:
    return figure.name, f"{number(figure.value)} {figure.unit}".strip()


def _line(line: Line) -> str:
    points = ", ".join(f"{at:,}: {number(value)}" for at, value in line.points)
    return f"{line.name}, by workspaces ({line.unit}): {points}"


def _profile(profile: Profile) -> str:
    rows = [(name, f"{share:.0f} %") for name, share in profile.shares]
    return f"Of {profile.of}:\n\n" + _table(("part", "share"), rows)


def _titled(table: Table) -> str:
    return f"{table.title}\n\n" + _table(table.head, table.rows)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _anchor(title: str) -> str:
    kept = "".join(each for each in title.lower() if each.isalnum() or each in " -")
    return kept.replace(" ", "-")


def number(value: float) -> str:
    """Format three significant digits, or all digits of a large whole number."""
    if value == round(value) or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}" if abs(value) >= 0.001 else f"{value:.1e}"
