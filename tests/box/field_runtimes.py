"""Emulates the runtimes in the field: `python field_runtimes.py once|retry_5xx|cached`.

They behave as register-protocol.md states and know nothing of Onebox. Standard library only, and few imports,
because tests start dozens. Responses go to FIELD_JOURNAL for the tests; a runtime ignores the status of a
heartbeat.
"""

import http.client
import json
import os
import sys
import time
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from urllib.parse import urlsplit

REGISTER = "/registry/register"
HEARTBEAT = "/registry/heartbeat"

REGISTER_DELAYS = (1, 2, 4, 8, 16, 30, 30)
"""Seconds between the eight attempts of the newer runtimes: 91 s in all, times FIELD_DELAY_SCALE."""

CALL_SECONDS = 60.0
"""Longer than in the field, so that a busy machine's slow response is not lost and calls can be counted."""

LONGEST_LIFE_SECONDS = 600.0
"""Not as in the field: ends a runtime that a killed test left behind."""


class Kind(StrEnum):
    """The kinds of runtimes, by what they lack."""

    ONCE = "once"
    """The older one: registers once, and ignores any response but a 200."""
    RETRY_5XX = "retry_5xx"
    """The newer one: retries after a transport error or a 5xx, and never after another response."""
    CACHED = "cached"
    """The newer one, which also keeps the first non-empty token until the process ends."""


class Runtime:
    """One runtime, configured by its environment."""

    def __init__(self, kind: Kind, environ: Mapping[str, str]) -> None:
        self.kind = kind
        self.workspace_id = environ["WORKSPACE_ID"]
        self.platform = urlsplit(environ["PLATFORM_URL"])
        self.token_file = Path(environ.get("CONFIGS_DIR") or "/configs", ".auth_token")
        self.address = environ.get("ONEBOX_BOX_IP") or ""
        self.url = f"http://{self.address or '127.0.0.1'}:{environ['RUNTIME_PORT']}"
        self.heartbeat_seconds = float(environ.get("HEARTBEAT_SECONDS") or 30)
        self.delay_scale = float(environ.get("FIELD_DELAY_SCALE") or 1)
        self.journal = environ.get("FIELD_JOURNAL")
        self.started = time.monotonic()
        self.cached = ""

    def run(self) -> None:
        """Register, then send heartbeats, whatever the result."""
        self.register()
        while time.monotonic() < self.started + LONGEST_LIFE_SECONDS:
            self.heartbeat()
            time.sleep(self.heartbeat_seconds)

    def register(self) -> None:
        """Register with the same header on each attempt; ignores `Retry-After`."""
        card = {
            "name": self.workspace_id,
            "description": "an agent in the field",
            "version": "1.0.0",
            "url": self.url,
            "skills": [],
            "capabilities": {},
        }
        body = {"id": self.workspace_id, "url": self.url, "agent_card": card}
        bearer = self.bearer()
        delays = () if self.kind is Kind.ONCE else REGISTER_DELAYS
        for delay in (*delays, None):
            status, answer = self._call(REGISTER, body, bearer)
            minted = answer.get("auth_token") if status == 200 else None
            if isinstance(minted, str) and minted:
                self._keep(minted)
            final = status is not None and status < 500  # also for 401, 409, 410, 425 and 429
            if final or delay is None:
                return
            time.sleep(delay * self.delay_scale)

    def heartbeat(self) -> None:
        """Send a full heartbeat, with the five members that partial heartbeats of tools omit."""
        body: dict[str, object] = {
            "workspace_id": self.workspace_id,
            "error_rate": 0.0,
            "sample_error": "",
            "active_tasks": 0,
            "current_task": "",
            "uptime_seconds": int(time.monotonic() - self.started),
        }
        self._call(HEARTBEAT, body, self.bearer())

    def bearer(self) -> str:
        """The content of the token file; empty if there is none."""
        if self.cached:
            return self.cached
        try:
            token = self.token_file.read_text().strip()
        except OSError:
            return ""
        if self.kind is Kind.CACHED:
            self.cached = token
        return token

    def _keep(self, token: str) -> None:
        if self.kind is Kind.CACHED:
            self.cached = token
        self.token_file.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self.token_file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(token)

    def _call(self, path: str, body: object, bearer: str) -> tuple[int | None, dict[str, object]]:
        """POST from the box's own address; the status is None without a response."""
        connection = http.client.HTTPConnection(
            self.platform.hostname or "",
            self.platform.port,
            timeout=CALL_SECONDS,
            source_address=(self.address, 0) if self.address else None,
        )
        headers = {"Content-Type": "application/json"}
        if bearer:
            headers["Authorization"] = f"Bearer {bearer}"
        status, answer = None, None
        try:
            connection.request("POST", self.platform.path.rstrip("/") + path, json.dumps(body), headers)
            response = connection.getresponse()
            text = response.read()
            status = response.status
            answer = json.loads(text)
        except (OSError, http.client.HTTPException, ValueError):
            pass  # no response or an unreadable one; a status still counts
        finally:
            connection.close()
        self._note(path, status, bearer)
        return status, answer if isinstance(answer, dict) else {}

    def _note(self, path: str, status: int | None, bearer: str) -> None:
        if self.journal:
            line = {"pid": os.getpid(), "path": path, "status": status, "token": bearer[:8]}
            with open(self.journal, "a") as journal:
                journal.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    Runtime(Kind(sys.argv[1]), os.environ).run()
