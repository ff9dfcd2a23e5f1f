"""A history of one workspace on a running API: generations, calls, time, crashes.

Every answer is judged at once, by what the call proved and by the record as it was before it.
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

from activities.user_data import onebox_box
from register_api.auth.identity import CallerIdentity
from register_api.auth.rules import ABANDONED_AFTER
from store.registration.credentials import token_hash
from tests.register_api.platform import KEYS, OPERATOR_TOKEN
from tests.register_api.stage import Stage, Told

REGISTER, BEAT = "/registry/register", "/registry/heartbeat"

TRIES = 4
"""Of a register call: one that is told to wait a minute, two that come a bit too early, the last."""

BACK_WITHIN = timedelta(minutes=12)
"""For a box that lost five tokens lately, and is told so: ten minutes, and what it waits in between."""

_RECORD = """
SELECT g.generation AS current, t.generation, t.state, t.sha256,
       extract(epoch FROM now() - coalesce(t.last_used_at, t.created_at))::float AS unused
FROM generations g LEFT JOIN tokens t ON t.workspace_id = g.workspace_id AND t.state <> 'revoked'
WHERE g.workspace_id = %s AND g.superseded_at IS NULL
"""

# Facts of intruders are left out: that a superseded box called is for the lifecycle to know.
_EVERYTHING = """
SELECT w::text AS workspace, b::text AS beat,
       array(SELECT g::text FROM generations g WHERE g.workspace_id = w.workspace_id ORDER BY 1) AS opened,
       array(SELECT t::text FROM tokens t WHERE t.workspace_id = w.workspace_id ORDER BY 1) AS tokens,
       array(SELECT f::text FROM workspace_outbox f WHERE f.workspace_id = w.workspace_id AND kind <>
       'superseded_call'
             ORDER BY 1) AS facts
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
    """The current generation, and what is live in whatever generation."""

    current: int
    rows: list[DictRow]

    @property
    def live(self) -> dict[bytes, str]:
        return {row["sha256"]: row["state"] for row in self.rows}

    @property
    def active_unused(self) -> float | None:
        return next((row["unused"] for row in self.rows if row["state"] == "active"), None)


class History:
    """One workspace: its record, its generations, and who was given which token."""

    def __init__(self, stage: Stage, *, judging: bool) -> None:
        """Without `judging`, all that counts is how often a script has to try."""
        self.stage = stage
        self.judging = judging
        self.workspace_id = stage.new_workspace()
        self.secrets: dict[str, int] = {}
        self.given: dict[bytes, tuple[int, str]] = {}
        self.answers: list[str] = []
        self.waited = timedelta()

    def open_next(self) -> tuple[int, str]:
        """Open the next generation; its number, and the secret of its box."""
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
        """As an operator."""
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
    ) -> Told:
        """Call and judge; with `held`, the API is killed while the call waits for these rows."""
        method = "GET" if body is None else "POST"
        began = monotonic()
        record, bearer = self.record(), headers.get("Authorization", "").removeprefix("Bearer ")
        identity = self._identity(record, bearer, headers.get("X-Bootstrap-Token", ""))
        before = None if identity is CallerIdentity.CURRENT else self._everything()
        if held is None:
            told = self.stage.send(method, path, headers, body)
        else:
            told = self.stage.kill(
                lambda: self.stage.send(method, path, headers, body),
                held=held,
                workspace_id=self.workspace_id,
            )
        if told.token is not None:
            self.given[token_hash(told.token)] = (record.current, by)
        if self.judging and told.status:
            match identity:
                case CallerIdentity.CURRENT:
                    _judge_current(
                        path, told, record, record.live.get(token_hash(bearer)), took=monotonic() - began
                    )
                case CallerIdentity.SUPERSEDED:
                    _judge_superseded(path, told)
                case _:
                    self._judge_stranger(path, told, present=bool(headers))
            if before is not None:
                assert self._everything() == before, f"I6, I7: {by} changed the record"
        return told

    def check(self) -> None:
        """What holds after every step, whoever called."""
        record = self.record()
        states = [row["state"] for row in record.rows]
        assert {row["generation"] for row in record.rows} <= {record.current}, "I4: an old token is live"
        assert states.count("pending") <= 1, f"I4: {states}"
        assert "active" not in states or len(states) == 1, (
            f"I4: a token outlived its successor's use: {states}"
        )
        for sha256 in record.live:
            assert self.given.get(sha256, (0, ""))[0] == record.current, (
                "I7: a live token that nobody was given"
            )

    @contextmanager
    def script_of(self, name: str) -> Iterator[None]:
        """The script of a box runs for the block: its calls are judged, its waits let time pass."""

        def call(
            _box: onebox_box.Box,
            _method: str,
            path: str,
            headers: dict[str, str],
            body: dict[str, object] | None = None,
        ) -> tuple[int, dict[str, object], str]:
            told = self.call(path, headers, body, by=name)
            if path == REGISTER:
                self.answers.append(str(told))
            return told.status, told.body, told.headers.get("retry-after", "")

        self.answers, self.waited = [], timedelta()
        clock = SimpleNamespace(sleep=self._sleep)
        with mock.patch.multiple(onebox_box, call=call, time=clock, log=lambda _: None):
            yield

    def _sleep(self, seconds: float) -> None:
        self.waited += timedelta(seconds=seconds)
        tries = [told for told in self.answers if told != "503 mint_limited"]
        if len(tries) >= TRIES or self.waited > BACK_WITHIN:
            holders = [self.given.get(sha256, (0, "nobody"))[1] for sha256 in self.record().live]
            raise AssertionError(
                f"I5: the right box is told {self.answers}; the live token was given to {holders}"
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

    def _judge_stranger(self, path: str, told: Told, *, present: bool) -> None:
        assert told.status == 401, f"I7: a stranger was answered {told}"
        told_now = (
            {**told.body, "request_id": "", "workspace_id": told.body["workspace_id"] == self.workspace_id},
            {name: value for name, value in told.headers.items() if name not in ("date", "x-request-id")},
        )
        kind = (path.replace(self.workspace_id, ""), present)
        told_first = self.stage.strangers_were_told.setdefault(kind, told_now)
        assert told_now == told_first, "what a stranger is told depends on the record"


def _judge_superseded(path: str, told: Told) -> None:
    if path in (REGISTER, BEAT):
        assert (told.status, told.body.get("action")) == (410, "shutdown"), f"I6: an old box was told {told}"
    else:
        assert (told.status, told.body.get("status")) == (200, "superseded"), (
            f"I6: an old box was told {told}"
        )


def _judge_current(path: str, told: Told, record: Record, bearer: str | None, *, took: float) -> None:
    """`took` are the seconds since just before the record was read: a token may have become quiet in them."""
    states, unused = set(record.live.values()), record.active_unused
    if path == BEAT:
        expected = "200" if bearer else "401 reregister_required"
        assert str(told) == expected, f"I5: a beat of the right box was answered {told}"
    elif path != REGISTER:
        assert told.status == 200, f"the right box asked for its state and was told {told}"
        assert told.body["status"] not in onebox_box.OVER, "I5: the right box was told that it is over"
    elif bearer in ("pending", "active"):
        assert (str(told), told.token) == ("200", None), f"I5: a live token was answered {told}"
    elif bearer is None and unused is not None and "pending" not in states:
        if told.token is not None:
            assert unused + took > ABANDONED_AFTER.total_seconds() - 1, "a token that is in use was replaced"
        else:
            assert str(told) == "503 mint_limited" or (
                str(told) == "503 token_in_use" and unused < ABANDONED_AFTER.total_seconds()
            ), f"I5: the right box was answered {told}"
    else:
        assert told.token is not None, f"I5: the gate is shut, the right box was answered {told}"
        pending = [sha256 for sha256, state in record.live.items() if state == "pending"]
        assert pending in ([], [token_hash(told.token)]), "a token that nobody used was replaced"
