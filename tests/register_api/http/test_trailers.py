"""Trailers of a chunked request are no headers: neither an address nor a credential follows a body."""

import json
import socket
from collections.abc import Iterator
from ipaddress import ip_network

import anyio
import pytest

from devstack.processes import LOCALHOST
from register_api.http.config import BootstrapPolicy
from tests.register_api.platform import OPERATOR_TOKEN, Box, Platform
from tests.register_api.serving import PATIENT, ApiProcess, api_process

pytestmark = pytest.mark.anyio

ADDRESS = "127.102.50.77"
ELSEWHERE = "203.0.113.9"

Fields = dict[str, str]


@pytest.fixture(scope="module")
def api(database: str) -> Iterator[ApiProcess]:
    """The API behind a proxy on this machine."""
    proxies = (ip_network("127.0.0.1/32"),)
    with api_process(
        database, policy=BootstrapPolicy.ADDRESS, trusted_proxies=proxies, waits=PATIENT
    ) as running:
        yield running


def request(
    path: str, body: dict[str, object], *, headers: Fields | None = None, trailers: Fields | None = None
) -> bytes:
    """A chunked request."""
    content = json.dumps(body)
    lines = [
        f"POST {path} HTTP/1.1",
        *_lines({"Host": "x", "Content-Type": "application/json", "Transfer-Encoding": "chunked"}),
        *_lines(headers or {}),
        "",
        f"{len(content):x}",
        content,
        "0",
        *_lines(trailers or {}),
        "",
        "",
    ]
    return "\r\n".join(lines).encode()


def _lines(fields: Fields) -> list[str]:
    return [f"{name}: {value}" for name, value in fields.items()]


async def statuses(api: ApiProcess, *requests: bytes) -> list[int]:
    """The statuses of requests on one connection."""
    return await anyio.to_thread.run_sync(_statuses, api.port, requests)


def _statuses(port: int, requests: tuple[bytes, ...]) -> list[int]:
    found = []
    with (
        socket.create_connection((LOCALHOST, port), timeout=PATIENT.lock.total_seconds()) as conn,
        conn.makefile("rb") as answers,
    ):
        for each in requests:
            conn.sendall(each)
            found.append(int(answers.readline().split()[1]))
            length = 0
            while (line := answers.readline().strip()) != b"":
                name, _, value = line.partition(b":")
                length = int(value) if name.lower() == b"content-length" else length
            answers.read(length)
    return found


async def box_at_its_address(platform: Platform) -> Box:
    box = await platform.workspace()
    await platform.database.execute(
        "UPDATE generations SET private_ip = %s WHERE workspace_id = %s", [ADDRESS, box.workspace_id]
    )
    return box


def register(box: Box, *, headers: Fields | None = None, trailers: Fields | None = None) -> bytes:
    body: dict[str, object] = {"id": box.workspace_id, "url": ""}
    return request("/registry/register", body, headers=headers, trailers=trailers)


async def test_an_address_in_a_trailer_is_no_evidence(api: ApiProcess, platform: Platform) -> None:
    box = await box_at_its_address(platform)
    forwarded, forged = {"X-Forwarded-For": ELSEWHERE}, {"X-Forwarded-For": ADDRESS}
    assert await statuses(api, register(box, headers=forwarded, trailers=forged)) == [401]
    assert await statuses(api, register(box, trailers=forged)) == [401]
    assert await platform.tokens(box) == []
    assert await statuses(api, register(box, headers=forged)) == [200]


async def test_a_credential_in_a_trailer_is_none(api: ApiProcess, platform: Platform) -> None:
    box = await box_at_its_address(platform)
    for credential in ({"Authorization": f"Bearer {box.secret}"}, {"X-Bootstrap-Token": box.secret}):
        assert await statuses(api, register(box, trailers=credential)) == [401]
    assert await platform.tokens(box) == []
    operator = {"Authorization": f"Bearer {OPERATOR_TOKEN}"}
    path = f"/workspaces/{box.workspace_id}/tokens"
    assert await statuses(api, request(path, {}, trailers=operator)) == [401]
    assert await statuses(api, request(path, {}, headers=operator)) == [201]


async def test_the_next_request_on_the_connection_has_its_own_headers(
    api: ApiProcess, platform: Platform
) -> None:
    box = await box_at_its_address(platform)
    forged = {"X-Forwarded-For": ADDRESS}
    later = register(box, headers=forged)
    assert await statuses(api, register(box, trailers=forged), register(box), later) == [401, 401, 200]
