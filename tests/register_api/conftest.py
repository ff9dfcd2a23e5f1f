"""Fixtures: the register API on a real database, called in process."""

from collections.abc import AsyncIterator, Iterator

import pytest

from devstack.postgres import Postgres
from tests.database import migrated_database, server
from tests.register_api.platform import Platform, platform_on


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    """The PostgreSQL server of the session."""
    with server(tmp_path_factory.mktemp("postgres")) as running:
        yield running


@pytest.fixture(scope="module")
def database(postgres: Postgres, request: pytest.FixtureRequest) -> str:
    """The URL of the module's own database, with the schema."""
    return migrated_database(postgres, request.module.__name__.rpartition(".")[2])


@pytest.fixture
def anyio_backend() -> str:
    """The event loop of async tests."""
    return "asyncio"


@pytest.fixture
async def platform(database: str) -> AsyncIterator[Platform]:
    """The API, its database, and calls as boxes make them."""
    async with platform_on(database) as running:
        yield running
