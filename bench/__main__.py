"""Runs the benchmarks: `python -m bench --size full`. Writes results, plots and docs/performance.md."""

import argparse
import os
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from bench.measurements import daily_load, generation, heartbeats, registrations, requests
from bench.parts.machine import machine
from bench.parts.results import Report, Result
from bench.parts.size import SIZES, Size
from bench.report import plots
from bench.report.page import page

HERE = Path(__file__).resolve().parent

BENCHMARKS: Mapping[str, Callable[[Size], Result]] = {
    "heartbeats": heartbeats.run,
    "registrations": registrations.run,
    "requests": requests.run,
    "generation": generation.run,
    "day": daily_load.run,
}


def main(arguments: list[str]) -> int:
    """Run the benchmarks in sequence and write the results. Returns 0, even if goals are missed."""
    options = _parser().parse_args(arguments)
    began = time.monotonic()

    def say(text: str) -> None:
        sys.stdout.write(f"{time.monotonic() - began:7.1f} s  {text}\n")
        sys.stdout.flush()

    results: list[Result] = []
    for name in options.only or BENCHMARKS:
        say(f"{name} …")
        results.append(BENCHMARKS[name](SIZES[options.size]))
        for goal in results[-1].goals:
            met = "" if goal.met else "  NOT MET"
            say(f"  {goal.text}: {goal.seen:.4g} {goal.unit} ({goal.relation} {goal.limit:g}){met}")
    report = Report(
        size=options.size,
        machine=machine(),
        minutes=(time.monotonic() - began) / 60,
        results=tuple(results),
    )
    write(report, results_dir=options.out, page_file=options.page)
    say(f"written: {options.out / f'{options.size}.json'}, {options.page}")
    return 0


def write(report: Report, *, results_dir: Path, page_file: Path) -> None:
    """Write JSON, plots and page."""
    results_dir.mkdir(parents=True, exist_ok=True)
    (results_dir / f"{report.size}.json").write_text(report.model_dump_json(indent=1) + "\n")
    for result in report.results:
        plots.write(result, results_dir)
    page_file.write_text(page(report, plots.names))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="bench",
        description="Compare the product with the ceilings of its parts and with a plain script.",
    )
    parser.add_argument("--size", choices=sorted(SIZES), default="full", help="amount of work")
    parser.add_argument("--only", nargs="*", choices=sorted(BENCHMARKS), help="these benchmarks, not all")
    parser.add_argument("--out", type=Path, default=HERE / "results", help="directory of JSON and plots")
    parser.add_argument(
        "--page", type=Path, default=HERE.parent / "docs" / "performance.md", help="the page to write"
    )
    return parser


if __name__ == "__main__":
    code = main(sys.argv[1:])
    sys.stdout.flush()
    # Processes that have used Temporal's SDK may crash at the interpreter's exit, after their work.
    os._exit(code)
