"""Every activity without PostgreSQL: one typed error, tried again, and no call to AWS."""

from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import timedelta

import pytest

from devstack.processes import free_port
from store.db.pool import open_pool
from tests.activities.world import World
from workflows.workspace import contract
from workflows.workspace.enums import Intent, Phase
from workflows.workspace.messages import WorkspaceSpec

pytestmark = pytest.mark.anyio

WS = "ws-outage"
REQUESTS: list[tuple[Callable[[object], Awaitable[object]], object]] = [
    (contract.enroll, contract.Enroll(workspace_id=WS, spec=WorkspaceSpec())),  # type: ignore[list-item]
    (contract.open_generation, contract.OpenGeneration(workspace_id=WS, after=0)),  # type: ignore[list-item]
    (contract.close_workspace, contract.CloseWorkspace(workspace_id=WS, generation=1, intent=Intent.STOP)),  # type: ignore[list-item]
    (
        contract.fence_instances,  # type: ignore[list-item]
        contract.FenceInstances(
            workspace_id=WS, generation=1, keep_attempt=1, declared_dead=(), proven_gone=()
        ),
    ),
    (contract.launch, contract.Launch(workspace_id=WS, generation=1, attempt=1)),  # type: ignore[list-item]
    (contract.address, contract.Address(workspace_id=WS, generation=1, attempt=1, instance_id="i-1")),  # type: ignore[list-item]
    (contract.remove_address, contract.RemoveAddress(workspace_id=WS)),  # type: ignore[list-item]
    (contract.ask_canary, contract.AskCanary(workspace_id=WS, generation=1, attempt=1)),  # type: ignore[list-item]
    (
        contract.record_status,  # type: ignore[list-item]
        contract.RecordStatus(
            workspace_id=WS,
            generation=1,
            revision=1,
            phase=Phase.ONLINE,
            last_error=None,
            conditions=(),
            requests=(),
        ),
    ),
]


@pytest.mark.parametrize(("port", "request_"), REQUESTS, ids=[type(one).__name__ for _, one in REQUESTS])
async def test_without_postgresql_every_activity_is_retried(
    world: World, port: Callable[[object], Awaitable[object]], request_: object
) -> None:
    nowhere = f"postgresql://nobody@127.0.0.1:{free_port()}/nothing"
    async with open_pool(nowhere, checkout_timeout=timedelta(milliseconds=50)) as pool:
        error = await replace(world, pool=pool).fails(port, request_)
    assert (error.type, error.non_retryable) == ("database_unavailable", False)
    assert error.details
    assert world.endpoint.instances(WS) == []
