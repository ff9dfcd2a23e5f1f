"""Fixtures for the field runtimes: the workspace's rows, the machine, and a proxy to the API."""

import http.client
import itertools
import json
import os
import secrets
import subprocess
import sys
import threading
from contextlib import closing
from datetime import datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import LiteralString

import psycopg
from psycopg.rows import DictRow
from typing_extensions import override

from activities.user_data.render import fill_secret, render_template
from store.registration.credentials import token_hash, token_prefix
from tests.box import field_runtimes
from tests.box.field_runtimes import HEARTBEAT, REGISTER, Kind
from tests.box.machine import CALL_SECONDS, Machine, impatient, wait_until
from tests.register_api.platform import KEYS

PATIENCE = {"BACKOFF_SECONDS": 0.1, "SLOW_SECONDS": 0.2, "CALL_SECONDS": CALL_SECONDS}
"""Timeouts of the script under test. They change how long it waits, not for what."""

_numbers = itertools.count()

_OPEN: tuple[LiteralString, ...] = (
    "UPDATE generations SET superseded_at = now() WHERE workspace_id = %(id)s AND superseded_at IS NULL",
    "UPDATE tokens SET state = 'revoked', nonce = NULL, revoked_at = now() WHERE workspace_id = %(id)s",
    "INSERT INTO generations (workspace_id, generation, key_id, spec, private_ip)"
    " VALUES (%(id)s, %(generation)s, 'k1', '{}', %(address)s)",
    "INSERT INTO heartbeats (workspace_id, generation) VALUES (%(id)s, %(generation)s) ON CONFLICT"
    " (workspace_id)"
    " DO UPDATE SET generation = excluded.generation, last_heartbeat_at = NULL, stale_since = NULL,"
    " unauthenticated_count = 0, credential_lost_at = NULL",
    "UPDATE workspaces SET generation = %(generation)s WHERE workspace_id = %(id)s",
)


class Workspace:
    """A workspace's rows: its second generation is open and has a recorded address."""

    def __init__(self, conn: psycopg.Connection[DictRow]) -> None:
        number = next(_numbers)
        self.id = f"field-{number}"
        self.address = f"127.77.{number // 250}.{number % 250 + 1}"
        self.generation = 0
        self._conn = conn
        conn.execute("INSERT INTO workspaces (workspace_id) VALUES (%s)", [self.id])
        self.open()
        self.open()

    def open(self) -> None:
        """Supersede the current generation and open the next one."""
        self.generation += 1
        values = {"id": self.id, "generation": self.generation, "address": self.address}
        with self._conn.transaction():
            for statement in _OPEN:
                self._conn.execute(statement, values)

    def locate(self, address: str | None) -> None:
        """Record the box's address, as the launch does."""
        self._conn.execute(
            "UPDATE generations SET private_ip = %s WHERE workspace_id = %s AND superseded_at IS NULL",
            [address, self.id],
        )

    def give(self, state: str, *, generation: int) -> str:
        """Create a token of a generation."""
        token = secrets.token_urlsafe(32)
        self._conn.execute(
            "INSERT INTO tokens (workspace_id, generation, state, sha256, prefix, key_id)"
            " VALUES (%s, %s, %s, %s, %s, 'k1')",
            [self.id, generation, state, token_hash(token), token_prefix(token)],
        )
        return token

    def revoke(self) -> None:
        """Revoke all live tokens, as an operator does."""
        self._conn.execute(
            "UPDATE tokens SET state = 'revoked', nonce = NULL, revoked_at = now()"
            " WHERE workspace_id = %s AND state <> 'revoked'",
            [self.id],
        )

    def age(self, duration: timedelta) -> None:
        """Age the last use of the tokens."""
        self._conn.execute(
            "UPDATE tokens SET last_used_at = last_used_at - %s WHERE workspace_id = %s", [duration, self.id]
        )

    def rows(self, query: LiteralString) -> list[DictRow]:
        return self._conn.execute(query, [self.id]).fetchall()

    def tokens(self) -> list[str]:
        """The states of the current generation's tokens, oldest first."""
        found = self.rows("SELECT generation, state FROM tokens WHERE workspace_id = %s ORDER BY created_at")
        return [row["state"] for row in found if row["generation"] == self.generation]

    def now(self) -> datetime:
        """The database's time, which also dates heartbeats."""
        [row] = self._conn.execute("SELECT clock_timestamp() AS now").fetchall()
        now: datetime = row["now"]
        return now

    def events(self) -> list[str]:
        return [
            row["kind"]
            for row in self.rows(
                "SELECT kind FROM workspace_outbox WHERE workspace_id = %s ORDER BY event_id"
            )
        ]


class Field(Machine):
    """A machine whose image contains a field runtime."""

    def __init__(self, directory: Path, workspace: Workspace, kind: Kind, *, url: str) -> None:
        secret = KEYS.bootstrap_secret(workspace.id, workspace.generation, key_id="k1")
        super().__init__(directory, url=url, secret=secret, generation=workspace.generation)
        self.kind = kind
        self.url = url
        self.secret = secret
        self.workspace = workspace
        self.user_data = directory / "user-data"
        self.generation = workspace.generation
        self.delay_scale = 0.1
        """Scales the delays between register attempts, compared with the field."""

    @override
    def boot(self) -> None:
        """Execute the user data, which starts the runtime."""
        template = render_template(
            workspace_id=self.workspace.id,
            generation=self.generation,
            register_api_url=self.url,
            runtime_command=f"'{sys.executable}' -S '{field_runtimes.__file__}' {self.kind}",
            runtime_user="",
            runtime_port=8000,
            configs_dir=str(self.configs),
        )
        self.user_data.write_text(impatient(fill_secret(template, self.secret), **PATIENCE))
        self._start(
            [str(self.user_data)],
            ONEBOX_FOREGROUND="1",
            ONEBOX_WATCH_SECONDS="0.1",
            ONEBOX_POWER_OFF_COMMAND=f"touch '{self.off}'",
        )

    def boot_bare(self) -> None:
        """Execute only the runtime, as an image with fixed user data does."""
        self._start(
            [field_runtimes.__file__, self.kind],
            WORKSPACE_ID=self.workspace.id,
            PLATFORM_URL=self.url,
            CONFIGS_DIR=str(self.configs),
            RUNTIME_PORT="8000",
        )

    def _start(self, arguments: list[str], **environ: str) -> None:
        environ |= {
            "PATH": os.environ["PATH"],
            "ONEBOX_BOX_IP": self.workspace.address,
            "HEARTBEAT_SECONDS": "0.1",
            "FIELD_DELAY_SCALE": str(self.delay_scale),
            "FIELD_JOURNAL": str(self.journal),
        }
        with self.log.open("ab") as log:
            # Without site-packages: neither the script nor a field runtime can use ours.
            self._process = subprocess.Popen([sys.executable, "-S", *arguments], env=environ, stderr=log)

    def put(self, token: str) -> None:
        """Write the token file from outside of the box script."""
        self.configs.mkdir(exist_ok=True)
        new = self.configs / "new"
        new.touch(0o600)
        new.write_text(token)
        new.rename(self.configs / ".auth_token")

    def calls(self) -> list[dict[str, object]]:
        """Every call of a runtime, with the response."""
        return super().runtimes()

    def statuses(self, path: str) -> list[object]:
        return [call["status"] for call in self.calls() if call["path"] == path]

    @override
    def runtimes(self) -> list[dict[str, object]]:
        """The first call of every runtime that was started."""
        return list({call["pid"]: call for call in reversed(self.calls())}.values())[::-1]

    def online(self) -> str:
        """Wait until a new heartbeat with the file's token counts; return the token, the only live one."""
        now = self.workspace.now()

        def heartbeats() -> bool:
            token = self.token
            last = next((call for call in reversed(self.calls()) if call["path"] == HEARTBEAT), None)
            if not token or last is None or (last["status"], last["token"]) != (200, token_prefix(token)):
                return False
            taken_in = self.workspace.rows(
                "SELECT b.last_heartbeat_at, t.state, t.sha256"
                " FROM heartbeats b JOIN tokens t USING (workspace_id, generation)"
                " WHERE workspace_id = %s AND t.state <> 'revoked' AND b.credential_lost_at IS NULL"
            )
            live = [(row["state"], row["sha256"]) for row in taken_in]
            return live == [("active", token_hash(token))] and taken_in[0]["last_heartbeat_at"] > now

        wait_until(heartbeats, "a heartbeat with the token of the file, the only live one")
        assert self.token is not None
        return self.token


class Wire:
    """A proxy between boxes and API that drops the first response with a token."""

    def __init__(self, port: int) -> None:
        self.bearers: list[str] = []
        self.lost: dict[str, str] | None = None
        wire = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                wire.hand_on(self, port)

            def do_GET(self) -> None:
                wire.hand_on(self, port)

            @override
            def log_message(self, format: str, *args: object) -> None:
                """Log nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> "Wire":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def hand_on(self, call: BaseHTTPRequestHandler, port: int) -> None:
        self.bearers.append(call.headers.get("Authorization", "").removeprefix("Bearer "))
        body = call.rfile.read(int(call.headers.get("Content-Length") or 0))
        source = (call.client_address[0], 0)
        with closing(http.client.HTTPConnection("127.0.0.1", port, source_address=source)) as api:
            api.request(call.command, call.path, body, dict(call.headers))
            answer = api.getresponse()
            data = answer.read()
        if call.path == REGISTER and answer.status == 200 and self.lost is None:
            self.lost = json.loads(data)
            return
        call.send_response(answer.status)
        for name, value in answer.getheaders():
            call.send_header(name, value)
        call.end_headers()
        call.wfile.write(data)
