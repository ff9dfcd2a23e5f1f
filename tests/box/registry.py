"""A fake register API on a socket, with injectable faults."""

import json
import secrets
import threading
from collections import deque
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple

from typing_extensions import override


class Call(NamedTuple):
    """A received request."""

    path: str
    bearer: str
    secret: str | None
    body: dict[str, object]


class Registry:
    """Serves the box of one generation; its attributes may be changed while it runs."""

    def __init__(self, secret: str) -> None:
        self.secret = secret
        self.token: str | None = None
        """The live token; None if the box may get a new one."""
        self.retiring: str | None = None
        """The previous token, while it is still valid."""
        self.used = False
        self.status = "online"
        self.over: str | None = None
        """The code of a 410 for every register call."""
        self.faults: deque[int | str] = deque()
        """Faults of the next register calls: a status, `lost` (no response after the effect), or `hold`."""
        self.reached = threading.Event()
        """Set when a call is held."""
        self.calls: list[Call] = []
        registry = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                registry.register(self)

            def do_GET(self) -> None:
                registry.state(self)

            @override
            def log_message(self, format: str, *args: object) -> None:
                """Log nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._released = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> "Registry":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._released.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def registers(self) -> list[Call]:
        return [call for call in self.calls if call.path == "/registry/register"]

    def states(self) -> list[Call]:
        return [call for call in self.calls if call.path.endswith("/state")]

    def register(self, handler: BaseHTTPRequestHandler) -> None:
        call = self._read(handler)
        fault = self.faults.popleft() if self.faults else None
        if isinstance(fault, int):
            return _answer(handler, fault, {"code": "fault"})
        if self.over is not None:
            return _answer(handler, 410, {"code": self.over, "action": "shutdown"})
        answer = {"status": "registered"}
        if self.token is not None and call.bearer == self.token:
            self.used = True
        elif self.secret not in (call.bearer, call.secret):
            return _answer(handler, 401, {"code": "token_invalid"})
        elif self.token is not None and self.used:
            return _answer(handler, 503, {"code": "token_in_use"})
        else:
            self.token = self.token or secrets.token_urlsafe(32)
            answer["auth_token"] = self.token
        if fault == "hold":
            self.reached.set()
            self._released.wait()
        if fault in ("lost", "hold"):
            handler.close_connection = True
            return None
        return _answer(handler, 200, answer)

    def state(self, handler: BaseHTTPRequestHandler) -> None:
        call = self._read(handler)
        if call.bearer not in (self.token, self.retiring, self.secret):
            return _answer(handler, 401, {"code": "token_invalid"})
        return _answer(handler, 200, {"status": self.status, "paused": False, "deleted": False})

    def _read(self, handler: BaseHTTPRequestHandler) -> Call:
        body = handler.rfile.read(int(handler.headers.get("Content-Length") or 0))
        call = Call(
            path=handler.path,
            bearer=(handler.headers.get("Authorization") or "").removeprefix("Bearer "),
            secret=handler.headers.get("X-Bootstrap-Token"),
            body=json.loads(body or b"{}"),
        )
        self.calls.append(call)
        return call


def _answer(handler: BaseHTTPRequestHandler, status: int, body: dict[str, str] | dict[str, object]) -> None:
    data = json.dumps(body).encode()
    handler.send_response(status)
    handler.send_header("Content-Length", str(len(data)))
    handler.end_headers()
    handler.wfile.write(data)
