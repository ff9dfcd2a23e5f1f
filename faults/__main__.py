"""Runs fault injection: `python -m faults --seed 1 --minutes 20`. Exit code 1 if an invariant broke."""

import argparse
import json
import os
import sys
import time
from pathlib import Path

from faults import full_disk
from faults.page import page
from faults.runner import play
from faults.schedule import rounds_in
from faults.summary import as_json, table


def main(arguments: list[str]) -> int:
    """Run it, print the table, write the JSON and the page."""
    options = _parser().parse_args(arguments)
    full_disk.enter(["faults", *arguments])
    began = time.monotonic()

    def say(text: str) -> None:
        sys.stdout.write(f"{time.monotonic() - began:7.1f} s  {text}\n")
        sys.stdout.flush()

    rounds = options.rounds or rounds_in(options.minutes)
    tally = play(seed=options.seed, rounds=rounds, say=say)
    options.out.mkdir(parents=True, exist_ok=True)
    stem = options.out / f"faults-{options.seed}"
    stem.with_suffix(".json").write_text(json.dumps(as_json(tally), indent=1, default=str))
    stem.with_suffix(".html").write_text(page(tally))
    sys.stdout.write(f"\n{table(tally)}\n\nwritten: {stem}.json, {stem}.html\n")
    return 0 if tally.passed else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="faults",
        description="Inject every kind of fault into the whole stack, and check the invariants.",
    )
    parser.add_argument("--seed", type=int, default=1, help="the same seed gives the same faults")
    parser.add_argument(
        "--minutes", type=float, default=20.0, help="approximate duration; a round takes a minute"
    )
    parser.add_argument("--rounds", type=int, default=0, help="number of rounds, instead of minutes")
    parser.add_argument("--out", type=Path, default=Path(), help="directory of the JSON and the page")
    return parser


if __name__ == "__main__":
    code = main(sys.argv[1:])
    sys.stdout.flush()
    # Processes that have used Temporal's SDK may crash at the interpreter's exit, after their work.
    os._exit(code)
