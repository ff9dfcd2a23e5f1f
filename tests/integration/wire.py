"""A reverse proxy between boxes and the register API that loses or holds responses, or delays calls."""

import http.client
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

from typing_extensions import override

WAIT_SECONDS = 300.0
"""Holds last longer than any block, because an expired hold would release its calls."""


@dataclass(eq=False)
class Interference:
    """What happens to the next responses for a path, of one workspace.

    A path that ends with a slash matches all paths below it.
    """

    path: str
    workspace: str
    left: int
    hold: bool
    delay: bool
    containing: str
    caught: threading.Event = field(default_factory=threading.Event)
    released: threading.Event = field(default_factory=threading.Event)
    statuses: list[int] = field(default_factory=list)

    def concerns(self, path: str, body: bytes) -> bool:
        """Whether it matches the call: the workspace is in its path or in its body."""
        there = path.startswith(self.path) if self.path.endswith("/") else path == self.path
        named = self.workspace in path.split("/") or f'"{self.workspace}"'.encode() in body
        return there and named and self.containing.encode() in body


class Wire:
    """Listens on its own port; `upstream` may be set once the stack is up."""

    def __init__(self) -> None:
        self.upstream = ""
        self._lock = threading.Lock()
        self._interferences: list[Interference] = []
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.wire = self
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> "Wire":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    @contextmanager
    def interfere(
        self,
        workspace: str,
        path: str,
        *,
        times: int = 1,
        hold: bool = False,
        delay: bool = False,
        containing: str = "",
    ) -> Iterator[Interference]:
        """Lose responses for the block, or hold them until its end and then lose them.

        With `delay`, the calls wait in front of the register API until the block ends.
        `containing` is text of the request's body.
        """
        interference = Interference(
            path=path, workspace=workspace, left=times, hold=hold, delay=delay, containing=containing
        )
        with self._lock:
            self._interferences.append(interference)
        try:
            yield interference
        finally:
            interference.released.set()
            with self._lock:
                self._interferences.remove(interference)

    def catch(self, path: str, body: bytes, *, delay: bool) -> Interference | None:
        with self._lock:
            for interference in self._interferences:
                meant = interference.concerns(path, body)
                if interference.left > 0 and interference.delay is delay and meant:
                    interference.left -= 1
                    return interference
        return None


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128  # all boxes of a stack call at once after a stall
    wire: Wire

    @override
    def handle_error(self, request: Any, client_address: Any) -> None:
        """A box killed during a call is part of these tests."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def do_GET(self) -> None:
        self._pass_on()

    def do_POST(self) -> None:
        self._pass_on()

    @override
    def log_message(self, format: str, *args: object) -> None:
        """Log nothing."""

    def _pass_on(self) -> None:
        self.close_connection = True
        wire = self.server.wire
        body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        if interference := wire.catch(self.path, body, delay=True):
            interference.caught.set()
            interference.released.wait(WAIT_SECONDS)
        upstream = urlsplit(wire.upstream)
        connection = http.client.HTTPConnection(upstream.hostname or "", upstream.port, timeout=10)
        try:
            headers = {name: value for name, value in self.headers.items() if name.lower() != "host"}
            connection.request(self.command, self.path, body or None, headers)
            answer = connection.getresponse()
            content = answer.read()
        except OSError:
            return  # the register API is down, so close this connection
        finally:
            connection.close()
        if interference := wire.catch(self.path, body, delay=False):
            interference.statuses.append(answer.status)
            interference.caught.set()
            if interference.hold:
                interference.released.wait(WAIT_SECONDS)
            return
        self.send_response(answer.status)
        self.send_header("Content-Type", answer.headers.get("Content-Type", "application/json"))
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)
