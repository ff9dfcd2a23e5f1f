"""`onebox worker` whose workspaces do one thing otherwise from generation 2 on: no other can go on then."""

import asyncio
import sys
from typing import Any

from workers import worker
from workflows.workspace.contract import RecordStatus
from workflows.workspace.phases import runner

_call = runner.call


async def _otherwise(*arguments: Any, activity_id: str, **options: Any) -> Any:
    other = any(isinstance(each, RecordStatus) and each.generation > 1 for each in arguments)
    return await _call(*arguments, activity_id=f"other-{activity_id}" if other else activity_id, **options)


def main() -> int:
    """The worker's exit code."""
    vars(runner)["call"] = _otherwise
    return asyncio.run(worker.run())


if __name__ == "__main__":
    sys.exit(main())
