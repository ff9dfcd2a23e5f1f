"""A real PostgreSQL for the tests of the store."""

from collections.abc import Iterator

import pytest

from devstack.postgres import Postgres
from tests.database import server


@pytest.fixture(scope="module")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    """The module's own server, which tests may restart."""
    with server(tmp_path_factory.mktemp("postgres")) as running:
        yield running


@pytest.fixture
def anyio_backend() -> str:
    """What runs the async tests."""
    return "asyncio"
