"""In which order a workflow meets what comes with one task of it: all of it first, then its code runs once.

By default the SDK (1.35) lets the code run between signals and updates and what activities came to. A worker
that starts cold may hand over an update a moment later than a replay of the same task does (the SDK's issue
sdk-python 1591), so that the code went on in another order than every replay will: the run stands still for
good. With all of it taken in before the code runs, both go on alike: what waits for an activity comes first,
and what waits for a condition, as the workspace does for its messages, after it.
"""

from temporalio.worker import Worker
from temporalio.worker._workflow_instance import _WorkflowLogicFlag

SINGLE_BATCH_FLAG = _WorkflowLogicFlag.PROCESS_WORKFLOW_ACTIVATION_JOBS_AS_SINGLE_BATCH
"""The SDK writes it into each task that was worked on so, and replays the others as before. It will be its
default once two releases know it; until then only its own tests may ask for it, and we do."""


def apply_jobs_before_workflow_code(worker: Worker) -> None:
    """Let the workflows of a worker that has not started yet work so from their next tasks on."""
    worker._set_default_workflow_logic_flag(SINGLE_BATCH_FLAG, enabled=True)
