"""A history of one workspace on a running API: generations, calls, time, crashes.

Every response is checked at once against the caller's evidence and the record before the call.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from time import monotonic
from types import SimpleNamespace
from typing import LiteralString
from unittest import mock

from psycopg.rows import DictRow

from activities.user_data import box_base, onebox_box
from register_api.auth.identity import CallerIdentity
from register_api.auth.rules import ABANDONED_AFTER
from store.registration.credentials import token_hash
from tests.register_api.platform import KEYS, OPERATOR_TOKEN
from tests.register_api.stage import ApiResponse, Stage

REGISTER, HEARTBEAT = "/registry/register", "/registry/heartbeat"

TRIES = 4
"""Register attempts: one with a wait of a minute, two that are slightly early, and the last."""

BACK_WITHIN = timedelta(minutes=12)
"""The longest wait of a box that lost five tokens: ten minutes, and the waits in between."""

_RECORD = """
SELECT g.generation AS current, t.generation, t.state, t.sha256,
       extract(epoch FROM now() - coalesce(t.last_used_at, t.created_at))::float AS unused
FROM generations g LEFT JOIN tokens t ON t.workspace_id = g.workspace_id AND t.state <> 'revoked'
WHERE g.workspace_id = %s AND g.superseded_at IS NULL
"""

# Events of superseded calls are excluded: they are for the lifecycle.
_EVERYTHING = """
SELECT w::text AS workspace, b::text AS heartbeat,
       array(SELECT g::text FROM generations g WHERE g.workspace_id = w.workspace_id ORDER BY 1) AS opened,
       array(SELECT t::text FROM tokens t WHERE t.workspace_id = w.workspace_id ORDER BY 1) AS tokens,
       array(SELECT f::text FROM workspace_outbox f WHERE f.workspace_id = w.workspace_id AND kind <>
       'superseded_call'
             ORDER BY 1) AS events
FROM workspaces w LEFT JOIN heartbeats b USING (workspace_id) WHERE w.workspace_id = %s
"""

_TIME_PASSES: tuple[LiteralString, ...] = (
    "UPDATE tokens SET last_used_at = last_used_at - %s, created_at = created_at - %s"
    " WHERE workspace_id = %s",
    "UPDATE heartbeats SET last_heartbeat_at = last_heartbeat_at - %s, alive_since = alive_since - %s"
    " WHERE workspace_id = %s",
    "UPDATE generations SET opened_at = opened_at - %s, superseded_at = superseded_at - %s"
    " WHERE workspace_id = %s",
)


@dataclass(frozen=True, slots=True)
class Record:
    """The current generation, and the live tokens of any generation."""

    current: int
    rows: list[DictRow]

    @property
    def live(self) -> dict[bytes, str]:
        return {row["sha256"]: row["state"] for row in self.rows}

    @property
    def active_unused(self) -> float | None:
        return next((row["unused"] for row in self.rows if row["state"] == "active"), None)


class History:
    """One workspace: its record, its generations, and the holder of each token."""

    def __init__(self, stage: Stage, *, checking: bool) -> None:
        """Without `checking`, only the number of a script's attempts is checked."""
        self.stage = stage
        self.checking = checking
        self.workspace_id = stage.new_workspace()
        self.secrets: dict[str, int] = {}
        self.given: dict[bytes, tuple[int, str]] = {}
        self.answers: list[str] = []
        self.waited = timedelta()

    def open_next(self) -> tuple[int, str]:
        """Open the next generation; its number and its box's secret."""
        generation = len(self.secrets) + 1
        self.stage.open_next(self.workspace_id, generation)
        secret = KEYS.bootstrap_secret(self.workspace_id, generation, key_id=KEYS.current)
        self.secrets[secret] = generation
        return generation, secret

    def record(self) -> Record:
        rows = self.stage.rows(_RECORD, self.workspace_id)
        return Record(rows[0]["current"], [row for row in rows if row["sha256"] is not None])

    def pass_time(self, duration: timedelta) -> None:
        for statement in _TIME_PASSES:
            self.stage.write(statement, duration, duration, self.workspace_id)

    def revoke_newest(self) -> None:
        """Revoke the newest token as an operator."""
        query: LiteralString = (
            "SELECT token_id FROM tokens WHERE workspace_id = %s AND state <> 'revoked'"
            " ORDER BY created_at DESC LIMIT 1"
        )
        for row in self.stage.rows(query, self.workspace_id):
            path = f"/workspaces/{self.workspace_id}/tokens/{row['token_id']}"
            headers = {"Authorization": f"Bearer {OPERATOR_TOKEN}"}
            assert self.stage.send("DELETE", path, headers).status == 200

    def call(
        self,
        path: str,
        headers: dict[str, str],
        body: dict[str, object] | None,
        *,
        by: str,
        held: LiteralString | None = None,
    ) -> ApiResponse:
        """Call and check the response; with `held`, the API is killed while the call waits for these rows."""
        method = "GET" if body is None else "POST"
        began = monotonic()
        record, bearer = self.record(), headers.get("Authorization", "").removeprefix("Bearer ")
        identity = self._identity(record, bearer, headers.get("X-Bootstrap-Token", ""))
        before = None if identity is CallerIdentity.CURRENT else self._everything()
        if held is None:
            response = self.stage.send(method, path, headers, body)
        else:
            response = self.stage.kill(
                lambda: self.stage.send(method, path, headers, body),
                held=held,
                workspace_id=self.workspace_id,
            )
        if response.token is not None:
            self.given[token_hash(response.token)] = (record.current, by)
        if self.checking and response.status:
            match identity:
                case CallerIdentity.CURRENT:
                    _check_current(
                        path, response, record, record.live.get(token_hash(bearer)), took=monotonic() - began
                    )
                case CallerIdentity.SUPERSEDED:
                    _check_superseded(path, response)
                case _:
                    self._check_unproven(path, response, present=bool(headers))
            if before is not None:
                assert self._everything() == before, f"I6, I7: {by} changed the record"
        return response

    def check(self) -> None:
        """Check the invariants that hold after every step."""
        record = self.record()
        states = [row["state"] for row in record.rows]
        assert {row["generation"] for row in record.rows} <= {record.current}, (
            "I4: a token of an old generation is live"
        )
        assert states.count("pending") <= 1, f"I4: {states}"
        assert "active" not in states or len(states) == 1, (
            f"I4: a token is live after its successor was used: {states}"
        )
        for sha256 in record.live:
            assert self.given.get(sha256, (0, ""))[0] == record.current, (
                "I7: a live token that was never returned to a caller"
            )

    @contextmanager
    def script_of(self, name: str) -> Iterator[None]:
        """Run a box's script in the block: its calls are checked, its waits let time pass."""

        def call(
            _box: box_base.Box,
            _method: str,
            path: str,
            headers: dict[str, str],
            body: dict[str, object] | None = None,
        ) -> tuple[int, dict[str, object], str]:
            response = self.call(path, headers, body, by=name)
            if path == REGISTER:
                self.answers.append(str(response))
            return response.status, response.body, response.headers.get("retry-after", "")

        self.answers, self.waited = [], timedelta()
        clock = SimpleNamespace(sleep=self._sleep)
        with mock.patch.multiple(onebox_box, call=call, time=clock, log=lambda _: None):
            yield

    def _sleep(self, seconds: float) -> None:
        self.waited += timedelta(seconds=seconds)
        tries = [response for response in self.answers if response != "503 mint_limited"]
        if len(tries) >= TRIES or self.waited > BACK_WITHIN:
            holders = [self.given.get(sha256, (0, "nobody"))[1] for sha256 in self.record().live]
            raise AssertionError(
                f"I5: the current box got {self.answers}; the live token was given to {holders}"
            )
        self.pass_time(timedelta(seconds=seconds))

    def _everything(self) -> list[DictRow]:
        return self.stage.rows(_EVERYTHING, self.workspace_id)

    def _identity(self, record: Record, bearer: str, header: str) -> CallerIdentity:
        sha256 = token_hash(bearer)
        secret = self.secrets.get(header) or self.secrets.get(bearer)  # no box presents two
        generation = secret or self.given.get(sha256, (0, ""))[0]
        if generation == record.current and (secret or sha256 in record.live):
            return CallerIdentity.CURRENT
        return CallerIdentity.SUPERSEDED if 0 < generation < record.current else CallerIdentity.UNPROVEN

    def _check_unproven(self, path: str, response: ApiResponse, *, present: bool) -> None:
        assert response.status == 401, f"I7: an unknown caller got {response}"
        now = (
            {
                **response.body,
                "request_id": "",
                "workspace_id": response.body["workspace_id"] == self.workspace_id,
            },
            {name: value for name, value in response.headers.items() if name not in ("date", "x-request-id")},
        )
        kind = (path.replace(self.workspace_id, ""), present)
        first = self.stage.unproven_responses.setdefault(kind, now)
        assert now == first, "the response to an unproven caller depends on the record"


def _check_superseded(path: str, response: ApiResponse) -> None:
    if path in (REGISTER, HEARTBEAT):
        assert (response.status, response.body.get("action")) == (410, "shutdown"), (
            f"I6: an old box got {response}"
        )
    else:
        assert (response.status, response.body.get("status")) == (200, "superseded"), (
            f"I6: an old box got {response}"
        )


def _check_current(
    path: str, response: ApiResponse, record: Record, bearer: str | None, *, took: float
) -> None:
    """`took` are the seconds since the record was read: meanwhile a token may have become quiet."""
    states, unused = set(record.live.values()), record.active_unused
    if path == HEARTBEAT:
        expected = "200" if bearer else "401 reregister_required"
        assert str(response) == expected, f"I5: a heartbeat of the current box got {response}"
    elif path != REGISTER:
        assert response.status == 200, f"the current box requested its state and got {response}"
        assert response.body["status"] not in onebox_box.SHUTDOWN_STATUSES, (
            "I5: the current box got a final status"
        )
    elif bearer in ("pending", "active"):
        assert (str(response), response.token) == ("200", None), f"I5: a live token got {response}"
    elif bearer is None and unused is not None and "pending" not in states:
        if response.token is not None:
            assert unused + took > ABANDONED_AFTER.total_seconds() - 1, "a token in use was replaced"
        else:
            assert str(response) == "503 mint_limited" or (
                str(response) == "503 token_in_use" and unused < ABANDONED_AFTER.total_seconds()
            ), f"I5: the current box got {response}"
    else:
        assert response.token is not None, f"I5: no token for the current box: it got {response}"
        pending = [sha256 for sha256, state in record.live.items() if state == "pending"]
        assert pending in ([], [token_hash(response.token)]), "an unused token was replaced"
