"""The canary: its target, the responses that count, and redirects, proxies and slow agents."""

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

import pytest
from typing_extensions import override

from activities.workspace import canary
from activities.workspace.canary import question
from tests.activities.world import World
from workflows.workspace import contract

pytestmark = pytest.mark.anyio

READY = {"kind": "message", "role": "agent", "messageId": "m", "parts": [{"kind": "text", "text": "ready"}]}


class Agent(BaseHTTPRequestHandler):
    """An agent with a given response."""

    protocol_version = "HTTP/1.1"
    asked: ClassVar[list[tuple[str, dict[str, object]]]] = []
    answer: ClassVar[Callable[["Agent"], None]]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        type(self).asked.append((self.path, json.loads(body)))
        type(self).answer(self)

    def reply(self, body: bytes, *, status: int = 200, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    @override
    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Do not log."""


def result(value: object) -> bytes:
    return json.dumps({"jsonrpc": "2.0", "id": "1", "result": value}).encode()


@contextmanager
def agent(answer: Callable[[Agent], None]) -> Iterator[tuple[int, list[tuple[str, dict[str, object]]]]]:
    asked: list[tuple[str, dict[str, object]]] = []
    handler = type("Answering", (Agent,), {"asked": asked, "answer": staticmethod(answer)})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server.server_port, asked
        finally:
            server.shutdown()
            thread.join()


async def registered(world: World, url: str | None, *, ip: str | None = "127.0.0.1") -> contract.AskCanary:
    generation = await world.opened()
    await world.rows(
        "UPDATE generations SET url = %(url)s, private_ip = %(ip)s WHERE workspace_id = %(workspace_id)s",
        url=url,
        ip=ip,
    )
    return contract.AskCanary(workspace_id=world.workspace_id, generation=generation, attempt=1)


async def test_an_agent_that_answers_is_asked_at_the_recorded_address(world: World) -> None:
    with agent(lambda box: box.reply(result(READY))) as (port, asked):
        # Of the URL that the box reports, only port and path are used.
        request = await registered(world, f"http://metadata.example:{port}/a2a?x=1")
        for _ in range(2):
            assert await world.run(contract.ask_canary, request) == contract.CanaryResult(answered=True)
    assert [path for path, _ in asked] == ["/a2a?x=1"] * 2
    message_id = f"canary-{world.workspace_id}-1"
    assert asked[0][1] == asked[1][1] == question(request)
    assert asked[0][1]["id"] == message_id
    assert asked[0][1]["method"] == "message/send"


async def test_a_redirect_is_not_followed(world: World) -> None:
    def redirect(box: Agent) -> None:
        box.reply(b"", status=307, location="/elsewhere")

    with agent(redirect) as (port, asked):
        found = await world.run(contract.ask_canary, await registered(world, f"http://box:{port}"))
    assert (found.answered, found.code) == (False, "canary_refused")
    assert len(asked) == 1


async def test_an_endless_answer_is_cut_off(world: World) -> None:
    def flood(box: Agent) -> None:
        box.reply(b" " * (canary.MAX_RESPONSE_BYTES + 1))

    with agent(flood) as (port, _):
        found = await world.run(contract.ask_canary, await registered(world, f"http://box:{port}"))
    assert (found.answered, found.code) == (False, "canary_error")


async def test_a_slow_agent_times_out(world: World) -> None:
    done = threading.Event()

    def think(box: Agent) -> None:
        done.wait(300)
        box.close_connection = True

    canary_config = replace(world.config.canary, response_timeout=timedelta(seconds=1))
    impatient = world.with_config(replace(world.config, canary=canary_config))
    with agent(think) as (port, _):
        try:
            found = await impatient.run(contract.ask_canary, await registered(world, f"http://box:{port}"))
        finally:
            done.set()
    assert (found.answered, found.code) == (False, "canary_not_finished")


async def test_a_box_that_hangs_up_is_unreachable(world: World) -> None:
    def hang_up(box: Agent) -> None:
        box.close_connection = True

    with agent(hang_up) as (port, _):
        found = await world.run(contract.ask_canary, await registered(world, f"http://box:{port}"))
    assert (found.answered, found.code) == (False, "canary_unreachable")


async def test_a_box_without_a_listener_is_unreachable(world: World) -> None:
    with socket.socket() as deaf:  # keeps the port free of listeners
        deaf.bind(("127.0.0.1", 0))
        request = await registered(world, f"http://box:{deaf.getsockname()[1]}")
        found = await world.run(contract.ask_canary, request)
    assert (found.answered, found.code) == (False, "canary_unreachable")


async def test_an_answer_that_is_not_http_is_an_error_of_the_agent(world: World) -> None:
    def speak_in_tongues(box: Agent) -> None:
        box.wfile.write(b"\x16\x03\x01\r\n\r\n")
        box.close_connection = True

    with agent(speak_in_tongues) as (port, _):
        found = await world.run(contract.ask_canary, await registered(world, f"http://box:{port}"))
    assert (found.answered, found.code) == (False, "canary_error")


async def test_a_proxy_of_the_environment_is_not_used(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:1")
    with agent(lambda box: box.reply(result(READY))) as (port, _):
        found = await world.run(contract.ask_canary, await registered(world, f"http://box:{port}"))
    assert found.answered


@pytest.mark.parametrize("url", [None, ""])
async def test_a_box_in_poll_mode_has_no_url_to_ask(world: World, url: str | None) -> None:
    found = await world.run(contract.ask_canary, await registered(world, url))
    assert (found.answered, found.code) == (False, "canary_no_url")


async def test_a_superseded_box_is_not_asked(world: World) -> None:
    with agent(lambda box: box.reply(result(READY))) as (port, asked):
        request = await registered(world, f"http://box:{port}")
        await world.opened(after=1)
        assert (await world.fails(contract.ask_canary, request)).type == contract.SUPERSEDED
    assert asked == []
