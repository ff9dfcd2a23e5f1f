"""`onebox worker` with a non-deterministic change: another activity ID from generation 2 on."""

import asyncio
import sys
from typing import Any

from workers import worker
from workflows.shared import run_activity as runs
from workflows.workspace import status_writer
from workflows.workspace.contract import RecordStatus

_run_activity = runs.run_activity


async def _with_another_id(*arguments: Any, activity_id: str, **options: Any) -> Any:
    other = any(isinstance(each, RecordStatus) and each.generation > 1 for each in arguments)
    return await _run_activity(
        *arguments, activity_id=f"other-{activity_id}" if other else activity_id, **options
    )


def main() -> int:
    """The worker's exit code."""
    vars(status_writer)["run_activity"] = _with_another_id
    return asyncio.run(worker.run())


if __name__ == "__main__":
    sys.exit(main())
