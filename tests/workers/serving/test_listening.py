"""Two processes with the same listen address: the second one ends at once."""

import hashlib
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from devstack.processes import LOCALHOST, Child, accepts_connections, free_port
from workers.serving.listening import CannotListen, listen

SECONDS = 120.0

KEYED = {"DATABASE_URL": f"postgresql://x@{LOCALHOST}:1/x", "SERVER_KEYS": f"k1:{'ab' * 32}"}
SETTINGS = {
    "api": KEYED,
    "worker": KEYED
    | {
        "REGISTER_API_URL": "http://127.0.0.1:8080",
        "DNS_ZONE_ID": "Z1",
        "DNS_ZONE_NAME": "boxes.internal",
        "BOX_IMAGE_ID": "ami-1",
        "BOX_RUNTIME_COMMAND": "true",
        "TEMPORAL_ADDRESS": f"{LOCALHOST}:1",
    },
    "codec": {
        "PAYLOAD_KEYS": f"k1:{'ab' * 32}",
        "CODEC_TOKEN_HASHES": hashlib.sha256(b"token").hexdigest(),
    },
}
"""Without PostgreSQL and Temporal: a process listens before it connects."""

OWN = {"api": "REGISTER_API_BIND", "codec": "CODEC_BIND"}
"""Settings whose default would be the same address for all processes of these tests."""


@contextmanager
def started(name: str, log: Path, binds: dict[str, str]) -> Iterator[Child]:
    own = {OWN[name]: f"{LOCALHOST}:{free_port()}"} if name in OWN else {}
    child = Child(
        name,
        [sys.executable, "-m", "cli", name],
        log=log,
        environment={"PATH": os.environ["PATH"], "LOG_FORMAT": "json"} | SETTINGS[name] | own | binds,
    )
    child.start()
    try:
        yield child
    finally:
        child.kill()


@pytest.mark.parametrize(
    ("name", "setting"),
    [
        ("api", "REGISTER_API_BIND"),
        ("api", "API_METRICS_BIND"),
        ("worker", "WORKER_METRICS_BIND"),
        ("worker", "WORKER_HEALTH_BIND"),
        ("worker", "SDK_METRICS_BIND"),
        ("codec", "CODEC_BIND"),
    ],
)
def test_a_second_process_at_an_address_ends_with_code_1(tmp_path: Path, name: str, setting: str) -> None:
    port = free_port()
    binds = {setting: f"{LOCALHOST}:{port}"}
    with started(name, tmp_path / "first", binds) as first:
        first.wait_ready(lambda: accepts_connections(port), seconds=SECONDS)
        with started(name, tmp_path / "second", binds) as second:
            assert second.wait(seconds=SECONDS), "it lives on"
            assert second.exit_code == 1
            [error] = [line for line in second.log_text().splitlines() if not line.startswith("{")]
            assert error.startswith(f"onebox {name}: {setting}={LOCALHOST}:{port}: cannot listen there (")
            assert "ddress already in use" in error
        assert accepts_connections(port)
        assert first.running


@pytest.mark.parametrize("bind", ["256.0.0.1:80", "192.0.2.1:80"])
def test_an_address_of_another_host_is_refused(bind: str) -> None:
    with pytest.raises(CannotListen, match=f"X_BIND={bind}"):
        listen("X_BIND", bind)


def test_each_address_of_a_host_is_served() -> None:
    port = free_port()
    listeners = listen("X_BIND", f"localhost:{port}")
    try:
        found = {each[4][0] for each in socket.getaddrinfo("localhost", port, type=socket.SOCK_STREAM)}
        assert {each.getsockname()[0] for each in listeners} == found
    finally:
        for each in listeners:
            each.close()
