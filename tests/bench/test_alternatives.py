"""The alternative designs' register API: the first caller after a provision gets the token."""

from collections.abc import AsyncIterator, Iterator

import httpx2
import psycopg
import pytest
from starlette.applications import Starlette
from starlette.routing import Route

from bench.alternatives import registry
from bench.alternatives.registry import Registry
from tests.database import empty_database, server

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with server(tmp_path_factory.mktemp("postgres")) as postgres:
        url = empty_database(postgres, "rival")
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(registry.SCHEMA.encode())
            connection.execute("INSERT INTO workspaces (workspace_id) VALUES ('ws-1')")
        yield url


@pytest.fixture
async def heartbeats() -> list[str]:
    return []


@pytest.fixture
async def http(url: str, heartbeats: list[str]) -> AsyncIterator[httpx2.AsyncClient]:
    async def on_beat(workspace_id: str) -> None:
        heartbeats.append(workspace_id)

    async with registry.opened(url) as pool:
        handlers = Registry(pool, on_beat)
        app = Starlette(
            routes=[
                Route("/registry/register", handlers.register, methods=["POST"]),
                Route("/registry/heartbeat", handlers.heartbeat, methods=["POST"]),
            ]
        )
        transport = httpx2.ASGITransport(app)
        async with httpx2.AsyncClient(transport=transport, base_url="http://rival") as client:
            yield client
        async with pool.connection() as connection:
            await registry.revoke_tokens(connection, "ws-1")


async def register(http: httpx2.AsyncClient, token: str = "") -> httpx2.Response:
    return await http.post(
        "/registry/register", json={"id": "ws-1"}, headers={"Authorization": f"Bearer {token}"}
    )


async def test_a_second_box_or_one_that_lost_its_answer_is_unauthorized(http: httpx2.AsyncClient) -> None:
    first = await register(http)
    assert first.json()["auth_token"]
    assert (await register(http)).status_code == 401
    again = await register(http, first.json()["auth_token"])
    assert (again.status_code, "auth_token" in again.json()) == (200, False)


async def test_a_provision_lets_the_next_box_in_and_the_old_one_out(
    url: str, http: httpx2.AsyncClient
) -> None:
    old = (await register(http)).json()["auth_token"]
    async with registry.opened(url) as pool, pool.connection() as connection:
        await registry.revoke_tokens(connection, "ws-1")
    new = (await register(http)).json()["auth_token"]
    assert new != old
    assert (await register(http, old)).status_code == 401


async def test_only_an_authorized_beat_counts(http: httpx2.AsyncClient, heartbeats: list[str]) -> None:
    token = (await register(http)).json()["auth_token"]
    for bearer, status in (("", 401), ("wrong", 401), (token, 200)):
        answer = await http.post(
            "/registry/heartbeat",
            json={"workspace_id": "ws-1"},
            headers={"Authorization": f"Bearer {bearer}"},
        )
        assert answer.status_code == status
    assert heartbeats == ["ws-1"]
