"""`onebox worker` with the additional workflow `Clinging` and a short timeout."""

import asyncio
import sys
from datetime import timedelta

from tests.integration.cached_run import Clinging
from workers import wiring, worker
from workers.settings import worker as settings_worker
from workers.temporal import eviction_watch


def main() -> int:
    """The worker's exit code, if it gets to return one."""
    eviction_watch.EVICTION_TIMEOUT = timedelta(seconds=1)
    settings_worker.FINAL_AWS_CALLS = timedelta(seconds=1)
    vars(wiring)["DelegationWorkflow"] = Clinging
    return asyncio.run(worker.run())


if __name__ == "__main__":
    sys.exit(main())
