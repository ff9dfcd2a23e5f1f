"""SVG plots of what was measured: each comparison's rounds side by side, and each line of growth."""

from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench.results import Comparison, Line, Result

OURS, THEIRS = "#1f6f8b", "#c9b79c"
"""Told apart by brightness as well."""


def write(result: Result, directory: Path) -> list[str]:
    """The result's plots; their file names, comparisons first."""
    directory.mkdir(parents=True, exist_ok=True)
    written: list[str] = []
    # With a salt of its own, the same results make the same file.
    with mpl.rc_context({"svg.hashsalt": "onebox", "svg.fonttype": "none", "font.size": 9}):
        if result.comparisons:
            figure = Figure(figsize=(4.2 * len(result.comparisons), 2.8), layout="constrained")
            for axes, comparison in zip(
                figure.subplots(1, len(result.comparisons), squeeze=False)[0], result.comparisons, strict=True
            ):
                _comparison(axes, comparison)
            written.append(_saved(figure, directory / f"{result.name}.svg"))
        if result.lines:
            figure = Figure(figsize=(4.2 * len(result.lines), 2.8), layout="constrained")
            for axes, line in zip(
                figure.subplots(1, len(result.lines), squeeze=False)[0], result.lines, strict=True
            ):
                _line(axes, line)
            written.append(_saved(figure, directory / f"{result.name}-growth.svg"))
    return written


def _comparison(axes: Axes, it: Comparison) -> None:
    """Both sides of each round."""
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


def _saved(figure: Figure, file: Path) -> str:
    figure.savefig(file, metadata={"Date": None})
    return file.name
