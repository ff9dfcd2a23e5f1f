"""The load generator against a counting server: its calls, and its report of the responses."""

import json
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock, Thread
from typing import ClassVar

import pytest

from bench.load import serving
from bench.load.load import Call, Job
from bench.load.serving import LoadFailed

CALLS = [Call(bearer=f"token-{number}", body=json.dumps({"number": number})) for number in range(6)]


class Counting(BaseHTTPRequestHandler):
    """Answers the first call of each body with a given status, and all others with 200."""

    protocol_version = "HTTP/1.1"
    first = 200
    lock = Lock()
    seen: ClassVar[Counter[tuple[str, str, str]]] = Counter()

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        with self.lock:
            key = self.path, self.headers["Authorization"], body
            self.seen[key] += 1
            status = self.first if self.seen[key] == 1 else 200
        self.send_response(status)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, format: str, *arguments: object) -> None:  # type: ignore[explicit-override]  # noqa: A002
        """Log nothing."""


@contextmanager
def counting(first: int) -> Iterator[tuple[int, Counter[tuple[str, str, str]]]]:
    Counting.first, Counting.seen = first, Counter()
    with ThreadingHTTPServer(("127.0.0.1", 0), Counting) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield server.server_address[1], Counting.seen
        finally:
            server.shutdown()


def job(port: int, **more: object) -> Job:
    return Job.model_validate({"port": port, "path": "/beat", "calls": CALLS, "connections": 3, **more})


def test_each_call_is_made_until_it_succeeds_and_every_answer_counts() -> None:
    with counting(first=503) as (port, seen):
        told = serving.load(job(port, way="each"))
    assert told.answers == {503: 6, 200: 6}
    assert seen == {("/beat", f"Bearer {call.bearer}", call.body): 2 for call in CALLS}


def test_a_sustained_load_cycles_through_all_calls() -> None:
    with counting(first=200) as (port, seen):
        told = serving.sustained(port, "/beat", CALLS, connections=3, seconds=0.3)
    assert told.answers == {200: seen.total()}
    assert set(seen) == {("/beat", f"Bearer {call.bearer}", call.body) for call in CALLS}
    assert max(seen.values()) - min(seen.values()) <= 1


def test_a_paced_load_sends_as_many_as_it_was_told() -> None:
    with counting(first=200) as (port, seen):
        told = serving.load(job(port, way="paced", seconds=0.5, rate=40.0))
    assert told.answers == {200: 20}
    assert seen.total() == 20


def test_a_sustained_load_that_is_refused_is_no_measurement() -> None:
    with counting(first=401) as (port, _), pytest.raises(LoadFailed, match="401"):
        serving.sustained(port, "/beat", CALLS, connections=3, seconds=0.1)


def test_a_load_without_a_single_success_fails_with_its_statuses() -> None:
    with counting(first=401) as (port, _), pytest.raises(LoadFailed, match="401: 6"):
        serving.load(job(port, way="paced", seconds=0.1, rate=60.0))
