"""The reader of fleet metrics survives database errors."""

import asyncio
from collections.abc import Iterator
from datetime import timedelta

import pytest
from structlog.testing import capture_logs

from devstack.console import eventually
from devstack.postgres import Postgres
from store.db.pool import open_pool
from tests.database import empty_database, patiently_migrate, server
from workers.telemetry import fleet_metrics
from workers.telemetry.fleet_metrics import FleetMetricsReader
from workflows.fleet.rules import FleetPolicy

pytestmark = pytest.mark.anyio

SECONDS = 120.0


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    with server(tmp_path_factory.mktemp("postgres")) as running:
        yield running


async def test_a_missing_schema_is_logged_and_read_once_it_exists(
    postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fleet_metrics, "READ_INTERVAL", timedelta(milliseconds=50))
    monkeypatch.setattr(fleet_metrics, "log", fleet_metrics.log.bind())  # one that was not cached before
    url = empty_database(postgres, "behind")
    fleet_metrics.READ_AT.set(0)

    async def read_at() -> float:
        [sample] = next(iter(fleet_metrics.READ_AT.collect())).samples
        return sample.value

    async with open_pool(url) as pool:
        reader = FleetMetricsReader(pool=pool, policy=FleetPolicy(), expire=timedelta(hours=6))
        with capture_logs() as lines:
            reading = asyncio.create_task(reader.run())

            async def count() -> int:
                return len(lines)

            await eventually(count, lambda number: number >= 2, seconds=SECONDS)
            assert {line["event"] for line in lines} == {"fleet_metrics.unavailable"}
            assert await read_at() == 0
            await patiently_migrate(url)
            await eventually(read_at, bool, seconds=SECONDS)
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
