"""The schedule of faults around the incident: the same for every control plane that lives through it."""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass

from bench.baselines.contenders import ControlPlane
from bench.parts.stage import SETTLE_SECONDS, Stage

SLOW_SECONDS = 8.0
"""What EC2 takes longer to end an instance: on the real one, minutes instead of one."""

LATE_LIST_SECONDS = 3.0
"""For so long EC2's listing does not show a new instance: it is eventually consistent."""


async def _nothing(stage: Stage, control_plane: ControlPlane, workspace_id: str) -> None:
    """The incident as it was."""


async def _slow(stage: Stage, control_plane: ControlPlane, workspace_id: str) -> None:  # noqa: ARG001
    stage.console.aws.inject(
        "TerminateInstances", "slow_change", seconds=SLOW_SECONDS, times=1, workspace=workspace_id
    )


async def _lost_answer(stage: Stage, control_plane: ControlPlane, workspace_id: str) -> None:  # noqa: ARG001
    control_plane.wire.losing = workspace_id


async def _hold(stage: Stage, control_plane: ControlPlane, workspace_id: str) -> None:  # noqa: ARG001
    stage.console.aws.inject(
        "DescribeInstances", "late_list", seconds=LATE_LIST_SECONDS, times=None, workspace=workspace_id
    )
    stage.console.aws.inject("RunInstances", "hold", times=1, workspace=workspace_id)


async def _crash(stage: Stage, control_plane: ControlPlane, workspace_id: str) -> None:
    aws = stage.console.aws
    [held] = [
        each.id for each in aws.faults() if (each.fault.workspace, each.fault.fault) == (workspace_id, "hold")
    ]
    await asyncio.to_thread(aws.wait_until_held, held, seconds=SETTLE_SECONDS)
    await asyncio.to_thread(control_plane.kill)
    aws.release(held)
    await asyncio.to_thread(control_plane.revive)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One fault of the schedule."""

    name: str
    before: Callable[[Stage, ControlPlane, str], Coroutine[None, None, None]]
    """What is done before the requests."""
    meanwhile: Callable[[Stage, ControlPlane, str], Coroutine[None, None, None]] = _nothing
    """What is done while they are carried out."""
    fresh: bool = False
    """It befalls the first box, and nobody asks for anything."""


SIDE_BY_SIDE = (
    Fault(name="the incident as it was", before=_nothing),
    Fault(name="EC2 takes long to end the old box", before=_slow),
    Fault(name="the answer to the new box's register call is lost", before=_lost_answer),
    Fault(name="the same, of a fresh workspace that nobody misses yet", before=_lost_answer, fresh=True),
)
ALONE = Fault(
    name="who launches is killed in the call, and EC2's listing is late", before=_hold, meanwhile=_crash
)
"""It befalls all workspaces of a control plane."""
