"""Every activity without PostgreSQL: one typed error, tried again, and no call to AWS."""

from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import timedelta

import pytest

from activities import ports
from devstack.processes import free_port
from store.pool import open_pool
from tests.activities.world import World
from workflows.messages import WorkspaceSpec
from workflows.state import Intent, Phase

pytestmark = pytest.mark.anyio

WS = "ws-outage"
REQUESTS: list[tuple[Callable[[object], Awaitable[object]], object]] = [
    (ports.enroll, ports.Enroll(workspace_id=WS, spec=WorkspaceSpec())),  # type: ignore[list-item]
    (ports.open_generation, ports.OpenGeneration(workspace_id=WS, after=0)),  # type: ignore[list-item]
    (ports.close_workspace, ports.CloseWorkspace(workspace_id=WS, generation=1, intent=Intent.STOP)),  # type: ignore[list-item]
    (
        ports.fence_instances,  # type: ignore[list-item]
        ports.FenceInstances(workspace_id=WS, generation=1, keep_attempt=1, declared_dead=(), proven_gone=()),
    ),
    (ports.launch, ports.Launch(workspace_id=WS, generation=1, attempt=1)),  # type: ignore[list-item]
    (ports.address, ports.Address(workspace_id=WS, generation=1, attempt=1, instance_id="i-1")),  # type: ignore[list-item]
    (ports.remove_address, ports.RemoveAddress(workspace_id=WS)),  # type: ignore[list-item]
    (ports.ask_canary, ports.AskCanary(workspace_id=WS, generation=1, attempt=1)),  # type: ignore[list-item]
    (
        ports.record_status,  # type: ignore[list-item]
        ports.RecordStatus(
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
async def test_without_postgresql_every_activity_says_so_and_is_tried_again(
    world: World, port: Callable[[object], Awaitable[object]], request_: object
) -> None:
    nowhere = f"postgresql://nobody@127.0.0.1:{free_port()}/nothing"
    async with open_pool(nowhere, checkout_timeout=timedelta(milliseconds=50)) as pool:
        error = await replace(world, pool=pool).fails(port, request_)
    assert (error.type, error.non_retryable) == ("database_unavailable", False)
    assert error.details
    assert world.endpoint.instances(WS) == []
