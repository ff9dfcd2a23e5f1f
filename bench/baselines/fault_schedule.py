"""The fault schedule of the incident benchmark, identical for every control plane."""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass

from bench.baselines.contenders import ControlPlane
from bench.parts.stage import SETTLE_SECONDS, Stage

SLOW_SECONDS = 8.0
"""Extra time for an instance to terminate; on EC2, minutes instead of one."""

LATE_LIST_SECONDS = 3.0
"""How long EC2's eventually consistent listing omits a new instance."""


async def _nothing(stage: Stage, control_plane: ControlPlane, workspace_id: str) -> None:
    """The incident without further faults."""


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
    """Runs before the requests."""
    meanwhile: Callable[[Stage, ControlPlane, str], Coroutine[None, None, None]] = _nothing
    """Runs while the requests are executed."""
    fresh: bool = False
    """The fault hits the first box, without any request."""


SIDE_BY_SIDE = (
    Fault(name="the incident alone", before=_nothing),
    Fault(name="EC2 terminates the old box slowly", before=_slow),
    Fault(name="the new box's register response is lost", before=_lost_answer),
    Fault(name="the same for a fresh workspace, without a request", before=_lost_answer, fresh=True),
)
ALONE = Fault(
    name="the launching process is killed, and EC2's listing is late", before=_hold, meanwhile=_crash
)
"""The fault hits all workspaces of a control plane."""
