"""`onebox worker` with one workflow more, `Clinging`, and less patience."""

import asyncio
import sys
from datetime import timedelta

from tests.integration.clinging import Clinging
from workers import stuck, wiring, worker, worker_settings


def main() -> int:
    """The worker's exit code, if it lives to have one."""
    stuck.LET_GO_WITHIN = timedelta(seconds=1)
    worker_settings.LAST_CALLS = timedelta(seconds=1)
    vars(wiring)["DelegationWorkflow"] = Clinging
    return asyncio.run(worker.run())


if __name__ == "__main__":
    sys.exit(main())
