"""Collects the evidence: the AWS endpoint's journal, SQL, raw workflow histories, logs, files.

Shares no code with the product and judges nothing.
"""

import json
import re
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import httpx2
import psycopg
from psycopg.rows import dict_row

from faults.invariants.evidence import AuditRow, AwsCall, BoxTruth, Change, Event, RecordedRequest

TRACKED_COLUMNS = {
    "workspaces": ("workspace_id", "phase, generation, intent"),
    "generations": ("workspace_id", "instance_id, registered_at, superseded_at"),
    "tokens": ("workspace_id", "state"),
    "delegations": ("target_id", "state, dead_lettered, stalled"),
    "workspace_outbox": ("workspace_id", ""),
}
"""By table: the columns of the owner, and the columns whose changes are recorded."""

_SECRET = re.compile(r'"bootstrap_secret": "([^"]+)"')

_JOURNAL = """
CREATE SCHEMA fault_injection;
CREATE TABLE fault_injection.changes (
    seq          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at           timestamptz NOT NULL DEFAULT clock_timestamp(),
    transaction  bigint NOT NULL DEFAULT txid_current(),
    "table"      text NOT NULL,
    workspace_id text NOT NULL,
    "row"        jsonb NOT NULL
);
CREATE FUNCTION fault_injection.note() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO fault_injection.changes ("table", workspace_id, "row")
    SELECT TG_TABLE_NAME, it ->> TG_ARGV[0],
           it - '{nonce,sha256,agent_card,spec,conditions,task,response_preview}'::text[]
    FROM to_jsonb(NEW) AS it;
    RETURN NULL;
END $$;
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One run of a workspace's workflow, as the CLI exports it."""

    workspace: str
    run_id: str
    text: str
    last: Event


@dataclass(frozen=True, slots=True, kw_only=True)
class Collectors:
    """Direct addresses of the parts, without the proxies of the run."""

    database_url: str
    aws_url: str
    temporal_address: str
    temporal_cli: str

    def begin(self) -> None:
        """Install triggers that record each change. Call it before the first change."""
        with self._database() as database:
            database.execute(_JOURNAL)
            for table, (owner, columns) in TRACKED_COLUMNS.items():
                changed = (
                    f"({_pick('OLD', columns)}) IS DISTINCT FROM ({_pick('NEW', columns)})"
                    if columns
                    else "false"
                )
                for event, condition in (("INSERT", "true"), ("UPDATE", changed)):
                    database.execute(
                        f"CREATE TRIGGER fault_injection_{event} AFTER {event} ON public.{table} FOR EACH ROW"
                        f" WHEN ({condition}) EXECUTE FUNCTION fault_injection.note('{owner}')".encode()
                    )

    def truth(self, workspace: str) -> BoxTruth:
        """Return the current box from PostgreSQL. Raises psycopg's errors."""
        rows = self._rows(_TRUTH, workspace)
        row: Mapping[str, object] = rows[0] if rows else {}
        generation, age = row.get("generation"), row.get("heartbeat_age")
        return BoxTruth(
            at=_number(row.get("at", 0.0)),
            generation=int(str(generation)) if generation is not None else None,
            registered=bool(row.get("registered")),
            live_tokens=int(str(row.get("live_tokens") or 0)),
            heartbeat_age=None if age is None else _number(age),
            not_processing=bool(row.get("not_processing")),
            canary_answered=bool(row.get("canary_answered")),
        )

    def aws_calls(self) -> tuple[AwsCall, ...]:
        """Return the journal of the AWS endpoint."""
        return tuple(
            AwsCall(
                at=datetime.fromisoformat(it["at"]).timestamp(),
                action=it["action"],
                outcome=it["outcome"],
                workspace=it["workspace"],
                generation=it["generation"],
                instances=tuple(it["instance_ids"]),
                code=it["code"],
                parameters=it["parameters"],
            )
            for it in self._get("/_onebox/journal").json()
        )

    def changes(self) -> tuple[Change, ...]:
        """Return the changes that the triggers recorded."""
        rows = self._rows(
            'SELECT seq, extract(epoch FROM at) AS at, transaction, "table", workspace_id, "row"'
            " FROM fault_injection.changes ORDER BY seq"
        )
        return tuple(
            Change(
                seq=int(str(row["seq"])),
                at=_number(row["at"]),
                transaction=int(str(row["transaction"])),
                table=str(row["table"]),
                workspace=str(row["workspace_id"]),
                row=_object(row["row"]),
            )
            for row in rows
        )

    def recorded(self) -> tuple[RecordedRequest, ...]:
        """Return all requests with their outcomes."""
        rows = self._rows(
            "SELECT *, extract(epoch FROM decided_at) AS epoch FROM requests ORDER BY decided_at"
        )
        return tuple(
            RecordedRequest(
                workspace=str(row["workspace_id"]),
                request_id=str(row["request_id"]),
                kind=str(row["kind"]),
                requested_by=str(row["requested_by"]),
                observed_generation=_maybe(row["observed_generation"]),
                outcome=str(row["outcome"]),
                generation=int(str(row["generation"])),
                at=_number(row["epoch"]),
            )
            for row in rows
        )

    def audited(self) -> tuple[AuditRow, ...]:
        """Return the audit log."""
        rows = self._rows("SELECT *, extract(epoch FROM at) AS epoch FROM audit_log ORDER BY audit_id")
        return tuple(
            AuditRow(
                workspace=str(row["workspace_id"]),
                at=_number(row["epoch"]),
                generation=int(str(row["generation"])),
                call=str(row["operation"]),
                verdict=str(row["identity"]),
                code=str(row["code"]),
            )
            for row in rows
        )

    def addresses(self) -> dict[str, tuple[str, int]]:
        """Return the owner of each address, from the recorded launches and the endpoint's tags."""
        found: dict[str, tuple[str, int]] = {}
        for row in self._rows("SELECT workspace_id, generation, host(private_ip) AS ip FROM launches"):
            if row["ip"] is not None:
                found[str(row["ip"])] = str(row["workspace_id"]), int(str(row["generation"]))
        for it in self._get("/_onebox/instances").json():
            tags = it["tags"]
            found[it["private_ip"]] = tags["onebox:workspace"], int(tags["onebox:generation"])
        return found

    def bootstrap_secrets(self) -> dict[str, str]:
        """Return the bootstrap secrets from the instances' user data."""
        found: dict[str, str] = {}
        for it in self._get("/_onebox/instances").json():
            text = self._get(f"/_onebox/instances/{it['instance_id']}/user-data").text
            if secret := _SECRET.search(text):
                found[f"the bootstrap secret of {it['instance_id']}"] = secret[1]
        return found

    def histories(self, workspaces: Iterable[str]) -> tuple[tuple[Event, ...], tuple[Run, ...]]:
        """Return the events of all workspace runs, and the text of their histories."""
        events: list[Event] = []
        runs: list[Run] = []
        for workspace in workspaces:
            listed = self._temporal("list", "--query", f'WorkflowId = "{workspace}"')
            for run in json.loads(listed or "[]"):
                run_id = run["execution"]["runId"]
                text = self._temporal("show", "--workflow-id", workspace, "--run-id", run_id)
                these = [
                    Event(
                        workspace=workspace,
                        at=datetime.fromisoformat(it["eventTime"]).timestamp(),
                        type=it["eventType"].removeprefix("EVENT_TYPE_").lower(),
                    )
                    for it in json.loads(text or "{}").get("events", [])
                ]
                runs.append(Run(workspace=workspace, run_id=run_id, text=text, last=these[-1]))
                events += these
        return tuple(events), tuple(runs)

    def _temporal(self, *arguments: str) -> str:
        command = [self.temporal_cli, "workflow", *arguments]
        options = ["--address", self.temporal_address, "--output", "json", "--command-timeout", "60s"]
        done = subprocess.run([*command, *options], check=True, capture_output=True, text=True)  # noqa: S603
        return done.stdout

    def _get(self, path: str) -> httpx2.Response:
        answer = httpx2.get(f"{self.aws_url}{path}", timeout=60.0, trust_env=False)
        answer.raise_for_status()
        return answer

    def _database(self) -> psycopg.Connection[dict[str, object]]:
        return psycopg.connect(self.database_url, row_factory=dict_row, autocommit=True, connect_timeout=5)

    def _rows(self, query: str, *parameters: object) -> list[dict[str, object]]:
        with self._database() as database:
            return database.execute(query.encode(), parameters).fetchall()


_TRUTH = """
SELECT extract(epoch FROM now()) AS at, g.generation, g.registered_at IS NOT NULL AS registered,
       (SELECT count(*) FROM tokens t WHERE t.workspace_id = g.workspace_id
        AND t.generation = g.generation AND t.state <> 'revoked') AS live_tokens,
       extract(epoch FROM now() - b.last_heartbeat_at) AS heartbeat_age,
       g.agent_unresponsive_since IS NOT NULL AS not_processing,
       g.last_processed_at IS NOT NULL AS canary_answered
FROM generations g LEFT JOIN heartbeats b ON b.workspace_id = g.workspace_id AND b.generation = g.generation
WHERE g.workspace_id = %s AND g.superseded_at IS NULL
"""


def read_texts(files: Iterable[Path]) -> dict[str, str]:
    """Return the bytes of files, by name."""
    return {str(file.name): file.read_bytes().decode("latin-1") for file in files if file.is_file()}


def _pick(row: str, columns: str) -> str:
    return ", ".join(f"{row}.{name.strip()}" for name in columns.split(","))


def _number(value: object) -> float:
    return float(str(value))


def _maybe(value: object) -> int | None:
    return None if value is None else int(str(value))


def _object(value: object) -> Mapping[str, object]:
    return value if isinstance(value, dict) else {}
