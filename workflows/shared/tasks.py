"""Background tasks of a workflow."""

import asyncio


def is_done(task: asyncio.Task[None] | None) -> bool:
    """Whether a task has ended, or was never started."""
    return task is None or task.done()


def surface_errors(*tasks: asyncio.Task[None] | None) -> None:
    """Raise the error of an ended task: a programming error fails the workflow task, where it is visible."""
    for task in tasks:
        if task is not None and task.done() and not task.cancelled() and (error := task.exception()):
            # Wrapped: an error of Temporal's own would fail the workflow instead of the task.
            raise RuntimeError(f"a step failed with {type(error).__name__}") from error


def cancel_once(task: asyncio.Task[None] | None) -> None:
    """Cancel a task unless its cancellation is in progress: each one would cancel its activity again."""
    if task is not None and not task.cancelling():
        task.cancel()
