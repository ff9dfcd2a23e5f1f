"""SVG plots of the results: each comparison's rounds side by side, and each line of growth."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench.parts.results import Comparison, Line, Result

OURS, THEIRS = "#1f6f8b", "#c9b79c"
"""Distinguishable by brightness as well."""

UNDATED = {"Date": None}


def names(result: Result) -> list[str]:
    """Return the file names of a result's plots, comparisons first."""
    comparisons = [f"{result.name}.svg"] if result.comparisons else []
    return comparisons + ([f"{result.name}-growth.svg"] if result.lines else [])


def write(result: Result, directory: Path) -> None:
    """Write the result's plots to files with these names."""
    directory.mkdir(parents=True, exist_ok=True)
    # A fixed salt makes the files reproducible.
    with mpl.rc_context({"svg.hashsalt": "onebox", "svg.fonttype": "none", "font.size": 9}):
        if result.comparisons:
            figure, axes = _row(len(result.comparisons))
            for each, comparison in zip(axes, result.comparisons, strict=True):
                _comparison(each, comparison)
            figure.savefig(directory / f"{result.name}.svg", metadata=UNDATED)
        if result.lines:
            figure, axes = _row(len(result.lines))
            for each, line in zip(axes, result.lines, strict=True):
                _line(each, line)
            figure.savefig(directory / f"{result.name}-growth.svg", metadata=UNDATED)


def _row(number: int) -> tuple[Figure, Sequence[Axes]]:
    """Draw plots next to each other."""
    figure = Figure(figsize=(4.2 * number, 2.8), layout="constrained")
    return figure, list(figure.subplots(1, number, squeeze=False)[0])


def _comparison(axes: Axes, it: Comparison) -> None:
    """Draw both sides of each round."""
    rounds = range(1, len(it.rounds) + 1)
    axes.bar(
        [each - 0.2 for each in rounds], [ours for ours, _ in it.rounds], 0.38, color=OURS, label=it.ours
    )
    axes.bar(
        [each + 0.2 for each in rounds],
        [theirs for _, theirs in it.rounds],
        0.38,
        color=THEIRS,
        label=it.theirs,
    )
    axes.set_title(it.name, fontsize=9)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_xlabel("round")
    axes.set_ylabel(it.unit)
    axes.set_xticks(list(rounds))
    axes.set_ylim(0, 1.3 * max(max(pair) for pair in it.rounds))
    axes.legend(fontsize=7, frameon=False, loc="upper right")


def _line(axes: Axes, it: Line) -> None:
    axes.plot([at for at, _ in it.points], [value for _, value in it.points], "o-", color=OURS)
    axes.set_title(it.name, fontsize=9)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_xscale("log")
    axes.set_xticks([at for at, _ in it.points], [f"{at:,}" for at, _ in it.points])
    axes.minorticks_off()
    axes.set_xlabel("workspaces")
    axes.set_ylabel(it.unit)
    axes.set_ylim(bottom=0)
