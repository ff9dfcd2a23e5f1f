"""The balancer forwards each call once, to an API that is ready."""

import json
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx2
import pytest
from typing_extensions import override

from devstack.balancer import STATUS_PATH
from devstack.environment import BALANCER
from devstack.processes import LOCALHOST, Child, accepts_connections, free_port
from tests.devstack.cloud import PATIENCE_SECONDS, eventually


class Upstream(ThreadingHTTPServer):
    """Reports its readiness and echoes calls, or breaks the connection."""

    daemon_threads = True
    ready = True
    breaks = False
    gone = False
    """Also breaks the connections of probes."""
    calls = 0

    def __init__(self) -> None:
        super().__init__((LOCALHOST, 0), Echo)
        self.thread = threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True)
        self.thread.start()

    def close(self) -> None:
        self.shutdown()
        self.thread.join()
        self.server_close()


class Echo(BaseHTTPRequestHandler):
    server: Upstream
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        if self.path == "/readyz" and not self.server.gone:
            self._say(200 if self.server.ready else 503, b"{}")
        else:
            self._echo()

    def do_POST(self) -> None:
        self._echo()

    def do_HEAD(self) -> None:
        self._echo()

    @override
    def log_message(self, format: str, *args: object) -> None:
        """Log nothing."""

    def _echo(self) -> None:
        self.server.calls += 1
        body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        if self.server.breaks or self.server.gone:
            self.close_connection = True
            return
        seen = {
            "line": f"{self.command} {self.path}",
            "body": body.decode(),
            "forwarded": self.headers.get_all("X-Forwarded-For"),
            "peer": self.client_address[0],
            "bearer": self.headers["Authorization"],
        }
        self._say(201, json.dumps(seen).encode())

    def _say(self, status: int, content: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("X-Request-Id", "r-1")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


@pytest.fixture
def upstreams() -> Iterator[list[Upstream]]:
    with ExitStack() as stack:
        made = [Upstream(), Upstream()]
        for each in made:
            stack.callback(each.close)
        yield made


@pytest.fixture
def http(upstreams: list[Upstream], tmp_path: Path) -> Iterator[httpx2.Client]:
    port = free_port()
    names = [f"api-{number}={each.server_address[1]}" for number, each in enumerate(upstreams)]
    child = Child(
        "balancer",
        [sys.executable, "-m", "devstack.balancer", "--port", str(port), *names],
        log=tmp_path / "balancer.log",
    )
    child.start()
    try:
        child.wait_ready(lambda: accepts_connections(port), seconds=PATIENCE_SECONDS)
        url = f"http://{LOCALHOST}:{port}"
        with httpx2.Client(base_url=url, trust_env=False, timeout=PATIENCE_SECONDS) as client:
            eventually(lambda: ready(client) == [True, True])
            yield client
    finally:
        child.stop()


def ready(http: httpx2.Client) -> list[bool]:
    return [each["ready"] for each in http.get(STATUS_PATH).json()]


def test_a_call_is_passed_on_as_it_is_with_the_address_that_it_came_from(http: httpx2.Client) -> None:
    headers = {"Authorization": "Bearer t", "X-Forwarded-For": "10.0.0.7"}
    answer = http.post("/registry/a%20b?c=d%2Fe", content=b"the body", headers=headers)
    assert answer.status_code == 201
    assert answer.headers["x-request-id"] == "r-1"
    assert answer.json() == {
        "line": "POST /registry/a%20b?c=d%2Fe",
        "body": "the body",
        "forwarded": ["10.0.0.7", LOCALHOST],
        "peer": BALANCER,
        "bearer": "Bearer t",
    }
    answer = http.head("/there")
    assert (answer.status_code, answer.content) == (201, b"")
    assert int(answer.headers["content-length"]) > 0


def test_both_get_calls_and_one_that_is_not_ready_gets_none(
    http: httpx2.Client, upstreams: list[Upstream]
) -> None:
    for _ in range(4):
        assert http.get("/there").status_code == 201
    assert [each.calls for each in upstreams] == [2, 2]
    upstreams[0].ready = False
    eventually(lambda: ready(http) == [False, True])
    for _ in range(4):
        assert http.get("/there").status_code == 201
    assert [each.calls for each in upstreams] == [2, 6]


def test_if_none_is_ready_any_may_answer(http: httpx2.Client, upstreams: list[Upstream]) -> None:
    for each in upstreams:
        each.ready = False
    eventually(lambda: ready(http) == [False, False])
    assert http.get("/there").status_code == 201


def test_a_call_that_was_lost_is_a_502_and_is_not_sent_again(
    http: httpx2.Client, upstreams: list[Upstream]
) -> None:
    for each in upstreams:
        each.breaks = True
    answer = http.post("/there", content=b"once")
    assert answer.status_code == 502
    assert sum(each.calls for each in upstreams) == 1
    assert sum(each["failed"] for each in http.get(STATUS_PATH).json()) == 1


def test_one_that_is_gone_gets_no_calls(http: httpx2.Client, upstreams: list[Upstream]) -> None:
    upstreams[0].gone = True
    eventually(lambda: ready(http) == [False, True])
    for _ in range(4):
        assert http.get("/there").status_code == 201
