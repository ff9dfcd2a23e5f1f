"""PostgreSQL's own disk in its own namespace: completely full, and only for the processes in it."""

import subprocess
import sys
from pathlib import Path

import pytest


def test_a_full_disk_is_full_to_the_last_byte_and_nobody_elses(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.faults.on_a_full_disk", tmp_path],
        check=False,
        capture_output=True,
        text=True,
    )
    if "no disk" in done.stderr:
        pytest.skip("the kernel allows no mount namespace: this kind of fault is left out")
    assert done.stdout.split("\n")[:2] == ["No space left on device", "x"], done.stderr
    assert list(tmp_path.iterdir()) == []
