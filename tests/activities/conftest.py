"""PostgreSQL and an AWS endpoint for the tests of activities. Each test has its own workspace."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Iterator

import pytest

from activities.aws import client as aws_module
from activities.aws.client import Aws
from activities.delegation import a2a
from devstack.aws.client import AwsEndpoint
from devstack.processes import free_port
from store.db.pool import Pool
from tests.activities.orphans.sweeping import of_plane
from tests.activities.world import World, config_for
from tests.database import PATIENCE, patient_pool, patiently_migrate, server
from tests.devstack.cloud import endpoint_process, wait_for_endpoint

_NUMBERS = itertools.count(1)
_OWNERS = itertools.count(1)


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(autouse=True)
def patient_with_boxes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Test agents listen before they are called, so a slow connection only means a slow machine."""
    monkeypatch.setattr(a2a, "CONNECT_TIMEOUT", PATIENCE)


@pytest.fixture(scope="session")
def database_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A migrated database, shared by all tests."""
    with server(tmp_path_factory.mktemp("postgres")) as postgres:
        asyncio.run(patiently_migrate(postgres.url))
        yield postgres.url


@pytest.fixture(scope="session")
def endpoint_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of an AWS endpoint, shared by all tests."""
    port = free_port()
    fast = ("--pending-seconds", "0.05", "--terminating-seconds", "0.05")
    process = endpoint_process(tmp_path_factory.mktemp("aws"), port, *fast)
    process.start()
    try:
        yield wait_for_endpoint(process, port)
    finally:
        process.stop()


@pytest.fixture(scope="session")
def endpoint_client(endpoint_url: str) -> Iterator[AwsEndpoint]:
    """The control API of the endpoint."""
    with AwsEndpoint(endpoint_url) as endpoint:
        yield endpoint


@pytest.fixture
def endpoint(endpoint_client: AwsEndpoint) -> Iterator[AwsEndpoint]:
    """The endpoint, without faults before and after the test."""
    endpoint_client.clear()
    yield endpoint_client
    endpoint_client.clear()


@pytest.fixture(scope="session")
def aws(endpoint_url: str) -> Iterator[Aws]:
    """boto3 clients with long timeouts, configured from the environment, which is restored afterwards."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(aws_module, "CONNECT_SECONDS", PATIENCE.total_seconds())
        patch.setattr(aws_module, "READ_SECONDS", PATIENCE.total_seconds())
        patch.setenv("AWS_ENDPOINT_URL", endpoint_url)
        patch.delenv("AWS_DEFAULT_REGION", raising=False)
        patch.setenv("AWS_ACCESS_KEY_ID", "testing")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
        clients = Aws(threads=8, region="us-east-1")
    with clients as aws:
        yield aws


@pytest.fixture(scope="session")
async def pool(database_url: str, anyio_backend: str) -> AsyncIterator[Pool]:
    """Connections shared by all tests, on the event loop of the session."""
    async with patient_pool(database_url, maximum=4) as pool:
        yield pool


@pytest.fixture
async def world(pool: Pool, aws: Aws, endpoint: AwsEndpoint) -> World:
    """A new workspace."""
    return World(
        workspace_id=f"ws-{next(_NUMBERS)}",
        pool=pool,
        aws=aws,
        endpoint=endpoint,
        config=config_for(endpoint.info()),
    )


@pytest.fixture
def planes() -> Iterator[str]:
    """Unused names of control planes."""
    return (f"plane-{number}" for number in _OWNERS)


@pytest.fixture
def swept(world: World, planes: Iterator[str]) -> World:
    """A workspace of a new control plane, whose orphans need no minimum age."""
    return of_plane(world, next(planes))
