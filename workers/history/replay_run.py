"""Replays a recorded history with the current code; records commands and state after each workflow task."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC
from typing import Any

from temporalio import workflow
from temporalio.bridge.proto.workflow_activation import WorkflowActivation
from temporalio.bridge.proto.workflow_completion import WorkflowActivationCompletion
from temporalio.client import WorkflowHistory
from temporalio.worker import (
    ExecuteWorkflowInput,
    Interceptor,
    Replayer,
    UnsandboxedWorkflowRunner,
    WorkflowInboundInterceptor,
    WorkflowInstance,
    WorkflowInstanceDetails,
    WorkflowInterceptorClassInput,
    WorkflowRunner,
)
from typing_extensions import override

from workers.history.command_diff import Difference, Task, first_difference, issued_commands, recorded_tasks
from workers.history.state_snapshot import StateSnapshot
from workflows.delegation.workflow import DelegationWorkflow
from workflows.fleet.watchdog import WatchdogWorkflow
from workflows.orphans.workflow import SweepWorkflow
from workflows.repair.workflow import RepairWorkflow
from workflows.rollout.workflow import RolloutWorkflow
from workflows.shared.data_converter import DATA_CONVERTER
from workflows.workspace.workflow import WorkspaceWorkflow

WORKFLOWS = (
    *(WorkspaceWorkflow, DelegationWorkflow, RolloutWorkflow),
    *(WatchdogWorkflow, SweepWorkflow, RepairWorkflow),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayedRun:
    """The result of replaying one run."""

    failure: str | None
    """The SDK's error message if the code is not deterministic for this history, else None."""
    difference: Difference | None
    """The first command that differs from the history."""
    tasks: tuple[Task, ...]
    """The commands of the current code, by workflow task."""
    snapshots: tuple[StateSnapshot, ...]
    """The state after each task; empty for workflows other than WorkspaceWorkflow."""


async def replay_run(
    history: WorkflowHistory, *, run: int = 1, workflows: Sequence[type] = WORKFLOWS
) -> ReplayedRun:
    """Replay one run; `run` is its number in the chain, from 1."""
    recorder = _StateRecorder(run)
    replayer = Replayer(
        workflows=workflows,
        data_converter=DATA_CONVERTER,
        # As in the workers. In the sandbox the state would be of other classes than ours.
        workflow_runner=recorder,
        unsandboxed_workflow_runner=recorder,
        interceptors=[_InstanceCapture(recorder)],
        # Without it, a task that a busy machine delays for two seconds is reported as a deadlock.
        debug_mode=True,
    )
    result = await replayer.replay_workflow(history, raise_on_replay_failure=False)
    tasks = tuple(recorder.tasks.values())
    problem = result.replay_failure
    return ReplayedRun(
        failure=None if problem is None else str(problem),
        difference=first_difference(recorded_tasks(history.events), tasks),
        tasks=tasks,
        snapshots=tuple(recorder.snapshots),
    )


class _StateRecorder(WorkflowRunner):
    """Runs workflows like the SDK's runner, and records the result of each activation."""

    def __init__(self, run: int) -> None:
        self._run = run
        self._runner = UnsandboxedWorkflowRunner()
        self.workflow: object = None
        """The running workflow object; None before its first task."""
        self.tasks: dict[int, Task] = {}
        self.snapshots: list[StateSnapshot] = []

    @override
    def prepare_workflow(self, defn: Any) -> None:
        self._runner.prepare_workflow(defn)

    @override
    def create_instance(self, det: WorkflowInstanceDetails) -> WorkflowInstance:
        return _RecordedInstance(self._runner.create_instance(det), self)

    def record(self, activation: WorkflowActivation, completion: WorkflowActivationCompletion) -> None:
        """Add one activation; a workflow task may consist of several."""
        if all(job.HasField("remove_from_cache") for job in activation.jobs):
            return
        event = activation.history_length
        before = self.tasks.get(event)
        commands = issued_commands(completion.successful.commands)
        self.tasks[event] = Task(started=event, commands=(before.commands if before else ()) + commands)
        found = self.workflow
        if isinstance(found, WorkspaceWorkflow):
            # Private on purpose: no query returns the whole state.
            state, running = found._state, found._running
            at = activation.timestamp.ToDatetime(tzinfo=UTC)
            self.snapshots.append(
                StateSnapshot(run=self._run, event=event, at=at, state=state, running=running)
            )


class _RecordedInstance(WorkflowInstance):
    """A workflow instance that reports its activations to the recorder."""

    def __init__(self, instance: WorkflowInstance, recorder: _StateRecorder) -> None:
        self._instance = instance
        self._recorder = recorder

    @override
    def activate(self, act: WorkflowActivation) -> WorkflowActivationCompletion:
        completion = self._instance.activate(act)
        self._recorder.record(act, completion)
        return completion

    @override
    def get_serialization_context(self, command_info: Any) -> Any:
        return self._instance.get_serialization_context(command_info)

    @override
    def get_external_store_context(self, command_info: Any) -> Any:
        return self._instance.get_external_store_context(command_info)

    @override
    def get_info(self) -> workflow.Info:
        return self._instance.get_info()

    @override
    def get_thread_id(self) -> int | None:
        return self._instance.get_thread_id()


class _InstanceCapture(Interceptor):
    """Passes the workflow object to the recorder; the SDK exposes it to interceptors only."""

    def __init__(self, recorder: _StateRecorder) -> None:
        self._recorder = recorder

    @override
    def workflow_interceptor_class(
        self,
        input: WorkflowInterceptorClassInput,
    ) -> type[WorkflowInboundInterceptor]:
        recorder = self._recorder

        class _Capture(WorkflowInboundInterceptor):
            @override
            async def execute_workflow(self, input: ExecuteWorkflowInput) -> Any:
                recorder.workflow = workflow.instance()
                return await super().execute_workflow(input)

        return _Capture
