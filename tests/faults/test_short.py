"""A short fault injection run: two rounds on real parts, started like `make faults`."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROUNDS = 2
SEED = 2611

EFFECTIVE = 20
"""Minimum, of sixty faults: on a slow machine, many hit a part that another fault has just stopped."""

pytestmark = [pytest.mark.storm, pytest.mark.timeout(1500)]


def test_a_short_run_breaks_no_invariant(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "faults", "--seed", str(SEED), "--rounds", str(ROUNDS), "--out", tmp_path],
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    outcome = json.loads((tmp_path / f"faults-{SEED}.json").read_text())
    assert outcome["violations"] == []
    assert len(outcome["rounds"]) == ROUNDS
    assert sum(outcome["faults"].values()) >= EFFECTIVE
    assert min(outcome["evidence"].values()) > 0, outcome["evidence"]
    assert (tmp_path / f"faults-{SEED}.html").read_text().startswith("<!doctype html>")
