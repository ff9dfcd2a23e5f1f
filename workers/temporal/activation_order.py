"""SDK flag: apply all activation jobs before running workflow code (temporalio/sdk-python#1591).

Without it, the SDK runs workflow code between the jobs of one activation. A worker with a cold cache may then
apply an update later than a replay of the same task does, and the run is stuck on a non-determinism error.

Remove when the flag is on by default; `tests/workers/temporal/test_activation_order.py` fails then.
"""

from temporalio.worker import Worker
from temporalio.worker._workflow_instance import _WorkflowLogicFlag

SINGLE_BATCH_FLAG = _WorkflowLogicFlag.PROCESS_WORKFLOW_ACTIVATION_JOBS_AS_SINGLE_BATCH
"""The SDK records it in each task that ran with it, and replays other tasks without it."""


def apply_jobs_before_workflow_code(worker: Worker) -> None:
    """Turn the flag on for a worker that has not started yet."""
    worker._set_default_workflow_logic_flag(SINGLE_BATCH_FLAG, enabled=True)
