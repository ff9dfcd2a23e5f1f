"""The runtime's HTTP server: A2A at every path, its card, and `/_control` and `/_data/NAME` for tests."""

import json
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler
from pathlib import Path

from devstack.runtime.conversation import Mode, Runtime

DATA = "/_data/"


class Handler(BaseHTTPRequestHandler):
    """Handles one connection's requests."""

    protocol_version = "HTTP/1.1"
    timeout = 30
    runtime: Runtime

    def do_GET(self) -> None:
        """Return the agent card or the counts."""
        if self.path == "/_control":
            self._send(200, self.runtime.report())
        elif self.path.startswith(DATA):
            self._data(lambda file: {"text": file.read_text()})
        elif self.runtime.stats.mode is Mode.SILENT:
            self.close_connection = True
        elif self.path in ("/.well-known/agent-card.json", "/.well-known/agent.json"):
            self._send(200, self.runtime.card)
        else:
            self._send(404, {"error": "not found"})

    def do_POST(self) -> None:
        """Accept a message, or change the mode."""
        try:
            body = json.loads(self.rfile.read(int(self.headers.get("Content-Length", "0"))))
        except ValueError:
            body = None
        if self.path == "/_control":
            try:
                self.runtime.control(str(body.get("mode")) if isinstance(body, dict) else "")
            except ValueError as error:
                self._send(400, {"error": str(error)})
            else:
                self._send(200, self.runtime.report())
        elif self.path.startswith(DATA):
            text = str(body.get("text", "")) if isinstance(body, dict) else ""
            self._data(lambda file: {"written": file.write_text(text)})
        elif self.runtime.stats.mode is Mode.SILENT:
            self.close_connection = True  # no response
        elif isinstance(body, dict):
            self._send(200, self.runtime.answer(body))
        else:
            self._send(400, {"jsonrpc": "2.0", "id": None, "error": {"code": -32700, "message": "no JSON"}})

    def _data(self, use: Callable[[Path], dict[str, object]]) -> None:
        """Write or read a file on the data volume."""
        try:
            self._send(200, use(self.runtime.file(self.path.removeprefix(DATA))))
        except (OSError, ValueError) as error:
            self._send(404, {"error": str(error)})

    # typing.override needs Python 3.12, and typing_extensions would double the start-up time.
    def log_message(self, format: str, *arguments: object) -> None:  # type: ignore[explicit-override]  # noqa: A002
        """Log nothing; the runtime counts what matters."""

    def _send(self, status: int, document: Mapping[str, object]) -> None:
        content = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)
