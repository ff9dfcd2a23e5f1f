"""Every kind of fault, one at a time on an idle stage: each is effective and leaves nothing behind."""

from collections.abc import AsyncIterator, Iterator

import pytest

from devstack.console import Console, connected, eventually
from faults.injection import Injector, supported_kinds
from faults.schedule import Fault
from faults.stage import Stage, staged
from faults.workload import Callers
from workflows.workspace.enums import Phase

pytestmark = [pytest.mark.anyio, pytest.mark.storm, pytest.mark.timeout(1500)]

WORKSPACES = ["calm-1", "calm-2", "calm-3"]
BACK_SECONDS = 240.0

TIMES = 3
"""A fault may miss its target, because the previous fault caused a replacement."""


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    with staged() as stage:
        yield stage


@pytest.fixture
async def console(stage: Stage) -> AsyncIterator[Console]:
    stack = stage.stack
    async with connected(stack) as console:
        yield console


async def test_in_calm_every_kind_of_fault_is_felt_and_passes(stage: Stage, console: Console) -> None:
    for workspace in WORKSPACES:
        await console.start(workspace)
    for workspace in WORKSPACES:
        await console.until_phase(workspace, Phase.ONLINE, seconds=BACK_SECONDS)
    callers = Callers(console, seed=1, workspaces=WORKSPACES)
    injector = Injector(stage, console.aws, WORKSPACES, replace=callers.trigger, delegate=callers.delegate)
    ineffective = list(supported_kinds(disk=False))
    for _ in range(TIMES):
        ineffective = [
            kind
            for kind in ineffective
            if not await injector.inject(Fault(kind=kind, at=0.0, seconds=1.0, draw=0.5))
        ]
    assert [kind.name for kind in ineffective] == []

    await injector.end_all()
    for workspace in WORKSPACES:
        await console.until_phase(workspace, Phase.ONLINE, seconds=BACK_SECONDS)
    assert console.aws.faults() == []
    assert list(stage.host_faults_dir.glob("[!b]*")) == []

    async def read_only() -> object:
        [row] = await console.rows("SHOW default_transaction_read_only")
        return row["default_transaction_read_only"]

    # The server reloads its settings a moment later.
    await eventually(read_only, lambda it: it == "off", seconds=BACK_SECONDS)
