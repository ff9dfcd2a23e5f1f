"""The runtime's calls to the platform and its responses to messages.

Like runtimes in the field, it ignores the status of heartbeat responses.
"""

import fcntl
import http.client
import json
import os
import random
import sys
import threading
import time
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path
from urllib.parse import urlsplit

REGISTER_DELAYS = (1, 2, 4, 8, 16, 30, 30)
"""Delays between the eight attempts of newer runtimes in the field, in seconds: 91 s in all."""

CALL_SECONDS = 10.0

SLOW_SECONDS = 1.0

REPORTS = 30
"""Interval between reports of finished work, until one is accepted."""


class Mode(StrEnum):
    """Behaviour of the runtime."""

    HEALTHY = "healthy"
    BRAINDEAD = "braindead"
    """It sends heartbeats and accepts messages, but never processes one."""
    SLOW = "slow"
    """It answers that it works, and reports the result later."""
    SILENT = "silent"
    """It sends no heartbeats and no responses."""


LOSE_TOKEN = "lose_token"  # noqa: S105
"""An event rather than a mode: the runtime drops its token."""


@dataclass(slots=True, kw_only=True)
class RuntimeStats:
    """Counts of its actions, for observers."""

    mode: Mode = Mode.HEALTHY
    registers: int = 0
    register_status: int | None = None
    heartbeats: int = 0
    heartbeat_status: int | None = None
    messages: int = 0
    processed: int = 0
    has_token: bool = False


@dataclass(slots=True, kw_only=True)
class Runtime:
    """One runtime and its calls to the platform."""

    workspace_id: str
    platform_url: str
    configs: Path
    address: str
    port: int
    heartbeat_seconds: float
    ledger: Path | None = None
    """File with the IDs of processed messages, shared across boxes, to drop duplicates."""
    data: Path | None = None
    """The data volume, if the workspace has one."""
    stats: RuntimeStats = field(default_factory=RuntimeStats)
    token: str = field(default="", repr=False)
    started: float = field(default_factory=time.monotonic)
    wake: threading.Event = field(default_factory=threading.Event)
    """Set when a change must not wait for the next heartbeat."""

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> "Runtime":
        """Create it from the environment of a box."""
        return cls(
            workspace_id=environment["WORKSPACE_ID"],
            platform_url=environment["PLATFORM_URL"],
            configs=Path(environment.get("CONFIGS_DIR", "/configs")),
            address=environment.get("ONEBOX_BOX_IP", "127.0.0.1"),
            port=int(environment.get("RUNTIME_PORT", "8000")),
            heartbeat_seconds=float(environment.get("HEARTBEAT_SECONDS", "30")),
            ledger=Path(kept) / environment["WORKSPACE_ID"]
            if (kept := environment.get("ONEBOX_LEDGERS"))
            else None,
            data=Path(environment["DATA_DIR"]) if environment.get("DATA_DIR") else None,
        )

    @property
    def url(self) -> str:
        """Where it serves A2A."""
        return f"http://{self.address}:{self.port}"

    @property
    def token_file(self) -> Path:
        """File with the bearer token."""
        return self.configs / ".auth_token"

    @property
    def card(self) -> dict[str, object]:
        """The agent card."""
        return {
            "name": self.workspace_id,
            "description": "an agent of the devstack",
            "version": "1.0.0",
            "url": self.url,
            "skills": [],
            "capabilities": {},
        }

    def run(self) -> None:
        """Register, then send heartbeats until the box ends."""
        self._register()
        while True:
            if self.stats.mode is not Mode.SILENT:
                self._beat()
            self.wake.wait(self.heartbeat_seconds)
            self.wake.clear()

    def control(self, mode: str) -> None:
        """Change the behaviour. Raises `ValueError` for an unknown mode."""
        if mode == LOSE_TOKEN:
            self.token_file.unlink(missing_ok=True)
            self.token = ""
        else:
            self.stats.mode = Mode(mode)
        self.wake.set()

    def file(self, name: str) -> Path:
        """Return a path on the data volume. Raises `ValueError` without a volume or for an invalid name."""
        if self.data is None or not name.isalnum():
            raise ValueError("there is no data volume" if self.data is None else "letters and digits only")
        return self.data / name

    def report(self) -> dict[str, object]:
        """Return its counts and its state."""
        self.stats.has_token = bool(self.token)
        return {"workspace_id": self.workspace_id, **asdict(self.stats)}

    def answer(self, request: Mapping[str, object]) -> dict[str, object]:
        """Answer a JSON-RPC request."""
        envelope: dict[str, object] = {"jsonrpc": "2.0", "id": request.get("id")}
        parameters = request.get("params")
        message = parameters.get("message") if isinstance(parameters, dict) else None
        if request.get("method") != "message/send" or not isinstance(message, dict):
            return envelope | {"error": {"code": -32601, "message": "only message/send with a message"}}
        self.stats.messages += 1
        task: dict[str, object] = {
            "kind": "task",
            "id": str(uuid.uuid4()),
            "contextId": message.get("contextId") or str(uuid.uuid4()),
        }
        if self.stats.mode is Mode.BRAINDEAD:
            return envelope | {"result": task | {"status": {"state": "submitted"}}}
        message_id = str(message.get("messageId", ""))
        if self.stats.mode is Mode.SLOW:
            threading.Timer(SLOW_SECONDS, self._finish, (message_id,)).start()
            return envelope | {"result": task | {"status": {"state": "working"}}}
        said = " ".join(
            str(part.get("text", "")) for part in message.get("parts", []) if isinstance(part, dict)
        )
        self._process(message_id)
        artifact = {"artifactId": str(uuid.uuid4()), "parts": [{"kind": "text", "text": f"done: {said}"}]}
        return envelope | {"result": task | {"status": {"state": "completed"}, "artifacts": [artifact]}}

    def _finish(self, message_id: str) -> None:
        """Report the result of a delegation; repeat until the report is accepted."""
        self._process(message_id)
        path = f"/workspaces/{self.workspace_id}/delegations/{message_id}/update"
        for _ in range(REPORTS):
            status, _ = self._call(
                path, {"status": "completed", "response_preview": "done, slowly"}, self._bearer()
            )
            if status is not None and status < 500:
                return
            time.sleep(SLOW_SECONDS)

    def _process(self, message_id: str) -> None:
        """Process the message unless its ID is in the ledger."""
        if self.ledger is not None:
            with self.ledger.open("a+") as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                file.seek(0)
                if f"{message_id}\n" in file.readlines():
                    return
                file.write(f"{message_id}\n")
        self.stats.processed += 1

    def _register(self) -> None:
        body = {"id": self.workspace_id, "url": self.url, "agent_card": self.card}
        bearer = self._bearer()
        for delay in (*REGISTER_DELAYS, None):
            self.stats.registers += 1
            status, answer = self._call("/registry/register", body, bearer)
            self.stats.register_status = status
            minted = answer.get("auth_token")
            if status == 200 and isinstance(minted, str) and minted:
                self._save_token(minted)
            final = status is not None and status < 500  # 401, 409, 410, 425 and 429 too, as in the field
            if final or delay is None:
                break
            time.sleep(delay * random.uniform(0.9, 1.1))  # noqa: S311 - jitter, not a secret
        _log(f"register: {self.stats.register_status}; beating from now on, whatever it was")

    def _beat(self) -> None:
        body: dict[str, object] = {
            "workspace_id": self.workspace_id,
            "error_rate": 0.0,
            "sample_error": "",
            "active_tasks": 0,
            "current_task": "",
            "uptime_seconds": int(time.monotonic() - self.started),
        }
        status, _ = self._call("/registry/heartbeat", body, self._bearer())
        self.stats.heartbeats += 1
        self.stats.heartbeat_status = status  # for observers; the runtime ignores it

    def _bearer(self) -> str:
        if not self.token:  # a token that was read once is cached permanently
            try:
                self.token = self.token_file.read_text().strip()
            except OSError:
                self.token = ""
        return self.token

    def _save_token(self, token: str) -> None:
        self.token = token
        self.configs.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self.token_file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(token)

    def _call(self, path: str, body: object, bearer: str) -> tuple[int | None, dict[str, object]]:
        """POST from the box's own address. Returns no status without a response."""
        platform = urlsplit(self.platform_url)
        kind = http.client.HTTPSConnection if platform.scheme == "https" else http.client.HTTPConnection
        connection = kind(
            platform.hostname or "",
            platform.port,
            timeout=CALL_SECONDS,
            source_address=(self.address, 0),
        )
        headers = {"Content-Type": "application/json"} | (
            {"Authorization": f"Bearer {bearer}"} if bearer else {}
        )
        try:
            connection.request("POST", platform.path.rstrip("/") + path, json.dumps(body), headers)
            response = connection.getresponse()
            content = response.read()
            answer = json.loads(content) if response.status == 200 else {}
        except (OSError, http.client.HTTPException, ValueError) as error:
            _log(f"{path}: {type(error).__name__}")
            return None, {}
        finally:
            connection.close()
        return response.status, answer if isinstance(answer, dict) else {}


def _log(text: str) -> None:
    sys.stderr.write(f"runtime: {text}\n")
    sys.stderr.flush()
