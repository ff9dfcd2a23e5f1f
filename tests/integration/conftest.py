"""The shared stack of the integration tests; each test has its own workspaces."""

import asyncio
import itertools
import re
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from pathlib import Path

import psycopg
import pytest
from temporalio.service import RPCError

from devstack.aws.client import AwsEndpoint
from devstack.console import Console, connected
from devstack.stack import Stack
from tests.deploy.policy import allows
from tests.integration.collector import Collector
from tests.integration.watchdog import watched
from tests.integration.wire import Wire
from tests.stacks import hurried

SETTINGS = {
    "HEARTBEAT_SECONDS": "0.3",
    "HEARTBEAT_STALE_SECONDS": "6",
    "ONEBOX_WATCH_SECONDS": "1",
    "DELEGATION_ACK_SECONDS": "2",
    "DELEGATION_PROGRESS_SECONDS": "6",
    # How long a box stays degraded before it is replaced; tests observe it meanwhile.
    "NOT_PROCESSING_SECONDS": "15",
    "UNAVAILABLE_OFFERING_TTL_SECONDS": "0",
    # Tests break several boxes at once; fleet limits have their own tests.
    "FLEET_FREEZE_PERCENT": "100",
    "FLEET_MAX_CONCURRENT_PERCENT": "100",
    "FLEET_MAX_CONCURRENT_RECREATES": "1000",
}

CLEANUP_SECONDS = 60
"""Timeout of the cleanup; remaining workspaces do not fail a test."""

LAST = ("integration/test_secrets", "integration/test_calls")


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def wire() -> Iterator[Wire]:
    with Wire() as wire:
        yield wire


@pytest.fixture(scope="session")
def collector() -> Iterator[Collector]:
    """Receives the spans of the stack's processes."""
    with Collector() as collector:
        yield collector


@pytest.fixture(scope="session")
def ledgers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Directory in which the runtimes of all boxes record processed messages."""
    return tmp_path_factory.mktemp("ledgers")


@pytest.fixture(scope="session")
def stack(wire: Wire, ledgers: Path, collector: Collector) -> Iterator[Stack]:
    settings = SETTINGS | watched(wire, collector) | {"ONEBOX_LEDGERS": str(ledgers)}
    with hurried(settings) as stack:
        wire.upstream = stack.register_api_url
        yield stack
        # Of the tests on this stack; other workers may have their own.
        with AwsEndpoint(stack.aws_url) as endpoint:
            assert [action for action in endpoint.calls() if not allows(action)] == []


@pytest.fixture(scope="session")
def lasting() -> str:
    """The ID of a workspace that outlives the tests, for those that need any box."""
    return "lasting"


@pytest.fixture
def cleanup(stack: Stack, lasting: str) -> Iterator[None]:
    """Delete the test's workspaces afterwards, so that their heartbeats do not add up."""
    yield
    with suppress(TimeoutError, psycopg.OperationalError):
        asyncio.run(asyncio.wait_for(delete_all_but(lasting, stack), CLEANUP_SECONDS))


async def delete_all_but(lasting: str, stack: Stack) -> None:
    """Request the deletion of all other workspaces, without waiting for it."""
    made = "SELECT workspace_id FROM workspaces WHERE intent <> 'delete' AND workspace_id <> %s ORDER BY 1"
    async with connected(stack) as console:
        for row in await console.rows(made, lasting):
            # A test may have ended a workspace's workflow; continue with the others.
            with suppress(RPCError):
                await console.signal(str(row["workspace_id"]), "delete", requested_by="admin:tests")


@pytest.fixture
async def console(stack: Stack, cleanup: None) -> AsyncIterator[Console]:
    async with connected(stack) as console:
        console.aws.clear()
        yield console
        console.aws.clear()


_numbers = itertools.count(1)


@pytest.fixture
def new_id(request: pytest.FixtureRequest) -> Callable[[], str]:
    """IDs of workspaces that no other test has."""
    name = re.sub("[^a-z0-9]+", "-", request.node.name.lower())[:40].strip("-")
    return lambda: f"{name}-{next(_numbers)}"


@pytest.fixture
def workspace(new_id: Callable[[], str]) -> str:
    return new_id()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run last what checks the traces of the other tests."""
    items.sort(key=lambda item: [name in item.nodeid for name in LAST])
