"""A worker process that cannot evict a run ends, and another one continues."""

import sys
from pathlib import Path

import pytest

from devstack.console import Console
from devstack.processes import Child
from devstack.stack import Stack
from tests.integration.cached_run import Clinging
from workflows.shared.names import DELEGATIONS_TASK_QUEUE
from workflows.workspace.enums import Phase

pytestmark = [pytest.mark.anyio, pytest.mark.slow]


async def test_a_worker_that_cannot_evict_a_run_exits_and_another_continues(
    stack: Stack, console: Console, workspace: str, tmp_path: Path
) -> None:
    await console.start(workspace)
    await console.until_phase(workspace, Phase.ONLINE)
    stack.stop("worker")
    stuck = Child(
        "worker",
        [sys.executable, "-m", "tests.integration.cached_run_worker"],
        log=tmp_path / "worker.log",
        environment=stack.environment,
    )
    stuck.start()
    try:
        handle = await console.client.start_workflow(
            Clinging.run, id=f"{workspace}-clings", task_queue=DELEGATIONS_TASK_QUEUE
        )
        await console.signal(workspace, requested_by="admin:test", observed_generation=1)
        assert stuck.wait(seconds=120), "it does not end"
        await handle.terminate()
    finally:
        stuck.kill()
        stack.start("worker")
    assert stuck.exit_code == 1
    assert "worker.stuck" in stuck.log_text()
    assert "worker.killed" in stuck.log_text()
    await console.until_phase(workspace, Phase.ONLINE, generation=2)
