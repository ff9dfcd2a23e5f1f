"""Fingerprints of what workflow code issues: the commands of each recorded history's replay, task by task.

`python -m tests.replay.fingerprints` records those of the present code.
"""

import asyncio
import json
import sys
from pathlib import Path

from cli.replay.histories import read
from tests.replay.record import HISTORIES
from workers.history.replay_run import replay_run

FINGERPRINTS = Path(__file__).parent / "fingerprints.json"

INSTRUCTIONS = """\
The workflow code issues other commands than it did. An open run that meets the change stops with a
nondeterminism error, on every worker, until the code is put back. If the change is meant:
  1. branch on `workflow.patched("what-changes")` where the new behaviour begins, and keep the old one in the
     other branch, so that the recorded histories still replay;
  2. record a history that takes the new path (tests/replay/record.py);
  3. record the fingerprints: python -m tests.replay.fingerprints
If it is not meant, the line above says which command of which event is new."""

Fingerprints = dict[str, list[str]]


def fingerprint(name: str) -> list[str]:
    """The commands of one history's replay: `EVENT COMMAND`, by the event that their task began with."""
    recalled = asyncio.run(replay_run(read(HISTORIES / f"{name}.json")))
    return [f"{task.started} {command}" for task in recalled.tasks for command in task.commands]


def recorded() -> Fingerprints:
    """What was recorded."""
    found: Fingerprints = json.loads(FINGERPRINTS.read_text())
    return found


def difference(was: list[str], now: list[str]) -> str | None:
    """The first command that differs, with what was expected of it; None if none does."""
    for index in range(max(len(was), len(now))):
        expected = was[index] if index < len(was) else "nothing more"
        got = now[index] if index < len(now) else "nothing more"
        if expected != got:
            return f"command {index + 1}: expected {expected!r}, got {got!r}"
    return None


def main() -> None:
    """Record the fingerprints of all histories."""
    names = sorted(path.stem for path in HISTORIES.glob("*.json"))
    FINGERPRINTS.write_text(json.dumps({name: fingerprint(name) for name in names}, indent=1) + "\n")
    sys.stdout.write(f"recorded {len(names)} fingerprints\n")


if __name__ == "__main__":
    main()
