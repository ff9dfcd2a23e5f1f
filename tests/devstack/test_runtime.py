"""The runtime behaves towards the platform like the field's runtimes, and misbehaves on request."""

import json
import os
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx2
import pytest

from devstack.processes import Child, accepts_connections, free_port
from tests.devstack.cloud import PATIENCE_SECONDS, eventually


@dataclass
class Platform:
    """The runtime's calls and the responses to them."""

    url: str = ""
    token: str = "t" * 43
    registers: list[str] = field(default_factory=list)
    heartbeats: list[str] = field(default_factory=list)
    sources: set[str] = field(default_factory=set)


@pytest.fixture
def platform() -> Iterator[Platform]:
    platform_record = Platform()

    class Answers(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            bearer = self.headers.get("Authorization", "")
            platform_record.sources.add(self.client_address[0])
            bearers = (
                platform_record.registers if self.path == "/registry/register" else platform_record.heartbeats
            )
            bearers.append(bearer)
            answer = (
                {"auth_token": platform_record.token}
                if bearers is platform_record.registers and not bearer
                else {}
            )
            content = json.dumps({"status": "ok"} | answer).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:  # type: ignore[explicit-override]  # noqa: A002
            """Log nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        platform_record.url = f"http://127.0.0.1:{server.server_port}"
        yield platform_record
        server.shutdown()
        thread.join()


@pytest.fixture
def runtime(platform: Platform, tmp_path: Path) -> Iterator[httpx2.Client]:
    address, port = "127.64.1.2", free_port()
    child = Child(
        "runtime",
        [sys.executable, "-m", "devstack.runtime"],
        log=tmp_path / "log",
        environment=dict(os.environ)
        | {
            "WORKSPACE_ID": "ws-1",
            "PLATFORM_URL": platform.url,
            "CONFIGS_DIR": str(tmp_path),
            "ONEBOX_BOX_IP": address,
            "RUNTIME_PORT": str(port),
            "HEARTBEAT_SECONDS": "0.05",
        },
    )
    child.start()
    try:
        child.wait_ready(lambda: accepts_connections(port, host=address), seconds=PATIENCE_SECONDS)
        url = f"http://{address}:{port}"
        with httpx2.Client(base_url=url, trust_env=False, timeout=PATIENCE_SECONDS) as client:
            yield client
    finally:
        child.kill()


def ask(runtime: httpx2.Client) -> dict[str, object]:
    message = {
        "kind": "message",
        "role": "user",
        "messageId": "m1",
        "parts": [{"kind": "text", "text": "hi"}],
    }
    request = {"jsonrpc": "2.0", "id": 7, "method": "message/send", "params": {"message": message}}
    answer = runtime.post("/", json=request).json()
    assert answer["id"] == 7
    result = answer["result"]
    assert isinstance(result, dict)
    return result


def control(runtime: httpx2.Client, mode: str) -> None:
    runtime.post("/_control", json={"mode": mode}).raise_for_status()


def test_it_registers_keeps_its_token_and_beats_with_it_from_its_own_address(
    platform: Platform, runtime: httpx2.Client, tmp_path: Path
) -> None:
    eventually(lambda: len(platform.heartbeats) >= 2)
    assert platform.registers == [""]
    assert set(platform.heartbeats) == {f"Bearer {platform.token}"}
    assert platform.sources == {"127.64.1.2"}
    assert (tmp_path / ".auth_token").read_text() == platform.token
    watched = runtime.get("/_control").json()
    assert (watched["register_status"], watched["heartbeat_status"], watched["has_token"]) == (200, 200, True)


def test_it_answers_a_message_with_a_finished_result_unless_it_is_braindead(runtime: httpx2.Client) -> None:
    finished = ask(runtime)
    assert finished["status"] == {"state": "completed"}
    assert "done: hi" in json.dumps(finished["artifacts"])
    control(runtime, "braindead")
    assert ask(runtime)["status"] == {"state": "submitted"}


def test_a_silent_one_neither_beats_nor_answers(platform: Platform, runtime: httpx2.Client) -> None:
    eventually(lambda: bool(platform.heartbeats))
    control(runtime, "silent")
    with pytest.raises(httpx2.TransportError):
        ask(runtime)
    control(runtime, "healthy")
    before = len(platform.heartbeats)
    eventually(lambda: len(platform.heartbeats) > before)
    assert ask(runtime)["status"] == {"state": "completed"}


def test_one_that_lost_its_token_beats_without_and_takes_a_new_file(
    platform: Platform, runtime: httpx2.Client, tmp_path: Path
) -> None:
    eventually(lambda: bool(platform.heartbeats))
    control(runtime, "lose_token")
    eventually(lambda: platform.heartbeats[-1] == "")
    assert not (tmp_path / ".auth_token").exists()
    (tmp_path / ".auth_token").write_text("from outside\n")
    eventually(lambda: platform.heartbeats[-1] == "Bearer from outside")
    assert runtime.post("/_control", json={"mode": "unknown"}).status_code == 400
