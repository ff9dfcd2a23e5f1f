"""Instances without a recorded launch, and passes of the sweep; for tests and recorded histories."""

import asyncio
from dataclasses import dataclass

import boto3
from botocore.config import Config
from temporalio.client import ScheduleActionExecutionStartWorkflow, ScheduleOverlapPolicy

from devstack.console import TIMEOUT_SECONDS, Console, eventually
from devstack.stack import Stack
from workflows.orphans.workflow import SweepReport
from workflows.shared.names import SWEEP_SCHEDULE
from workflows.workspace.enums import Phase


@dataclass(frozen=True, slots=True, kw_only=True)
class Planting:
    """Launches instances without a recorded launch."""

    stack: Stack
    console: Console

    async def plant(
        self,
        workspace: str,
        *,
        generation: int | None = 1,
        attempt: int = 1,
        owner: str | None = None,
        protect: bool = False,
    ) -> str:
        tags = {
            "onebox:owner": owner or self.stack.environment["CONTROL_PLANE_ID"],
            "onebox:workspace": workspace,
            "onebox:attempt": str(attempt),
        }
        if generation is not None:
            tags["onebox:generation"] = str(generation)
        if protect:
            tags["onebox:protect"] = "kept for a look by core-devops"
        return await asyncio.to_thread(self._launch, tags)

    def _launch(self, tags: dict[str, str]) -> str:
        info = self.console.aws.info()
        ec2 = boto3.client(
            "ec2",
            endpoint_url=self.stack.aws_url,
            config=Config(region_name=info.region),
            aws_access_key_id="x",
            aws_secret_access_key="y",
        )
        launched = ec2.run_instances(
            ImageId=info.image_id,
            InstanceType="t3.small",
            MinCount=1,
            MaxCount=1,
            UserData="#!/bin/sh\nexec sleep 3600\n",
            TagSpecifications=[
                {"ResourceType": "instance", "Tags": [{"Key": key, "Value": tags[key]} for key in tags]}
            ],
        )
        ec2.close()
        return str(launched["Instances"][0]["InstanceId"])


async def one_pass(console: Console) -> SweepReport:
    """Trigger the schedule, as an operator would, and return the pass's result."""
    schedule = console.client.get_schedule_handle(SWEEP_SCHEDULE)

    async def passes() -> dict[str, str]:
        """Run IDs with their workflow IDs; two passes within a second share a workflow ID."""
        recent = (await schedule.describe()).info.recent_actions
        return {
            it.action.first_execution_run_id: it.action.workflow_id
            for it in recent
            if isinstance(it.action, ScheduleActionExecutionStartWorkflow)
        }

    before = set(await passes())
    # A pass started by the schedule could absorb the triggered one or run next to it.
    await schedule.trigger(overlap=ScheduleOverlapPolicy.BUFFER_ONE)
    after = await eventually(passes, lambda seen: bool(set(seen) - before))
    new = next(run for run in reversed(after) if run not in before)
    handle = console.client.get_workflow_handle(after[new], run_id=new, result_type=SweepReport)
    report: SweepReport = await handle.result()
    assert report.failures == ()
    assert report.instances is not None
    return report


async def lost(console: Console, workspace: str) -> str:
    """A workspace that failed after its launch's response was lost, so its instance is unrecorded."""
    # Held as well, so that it is not retried before everything else is in place.
    held = console.aws.inject("RunInstances", "hold", workspace=workspace)
    console.aws.inject("RunInstances", "lost_answer", workspace=workspace)
    late = console.aws.inject("DescribeInstances", "empty_list", times=None, workspace=workspace)
    await console.start(workspace)
    await asyncio.to_thread(console.aws.wait_until_held, held, seconds=TIMEOUT_SECONDS)
    [instance] = [it.instance_id for it in console.aws.instances(workspace)]
    refused = console.aws.inject(
        "RunInstances", "error", code="InvalidParameterValue", status=400, times=None, workspace=workspace
    )
    console.aws.release(held)
    await console.until_phase(workspace, Phase.FAILED)
    for fault in (late, refused):
        console.aws.release(fault)
    return instance
