"""Serialised states of releases: what continue-as-new carries from one release's code to the next one's.

`python -m tests.replay.states NAME` records what is not recorded yet, as NAME-HISTORY.json; old ones stay.
"""

import asyncio
import json
import sys
from pathlib import Path

from pydantic import TypeAdapter

from cli.replay.histories import read
from tests.replay.record import HISTORIES
from workers.history.replay_run import replay_run
from workflows.workspace.state import State

STATES = Path(__file__).parent / "states"
STATE = TypeAdapter(State)


def main() -> None:
    """Record the fullest state of each workspace's history: the one with the most of it set."""
    release = sys.argv[1]
    STATES.mkdir(exist_ok=True)
    for path in sorted(HISTORIES.glob("*.json")):
        file = STATES / f"{release}-{path.stem}.json"
        if file.exists():
            continue
        moments = asyncio.run(replay_run(read(path))).snapshots
        told = [json.dumps(STATE.dump_python(it.state, mode="json"), indent=1) for it in moments]
        if told:
            file.write_text(max(told, key=len) + "\n")


if __name__ == "__main__":
    main()
