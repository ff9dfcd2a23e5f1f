"""`onebox doctor`: what is looked at for whom, and the report.

What is looked for, and what it means, is in the modules beside it.
"""

import argparse
import asyncio
import logging
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from workers.doctor import api, aws, box_rules, database, temporal, traces
from workers.doctor.examining import Examination, examine
from workers.doctor.model import Finding, Process, healthy, skipped, without_secrets
from workers.doctor.reading import Reading, chosen, read
from workers.doctor.rendering import as_json, as_text

SECRET_VARIABLES = (
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "DATABASE_URL",
    "OTEL_EXPORTER_OTLP_HEADERS",
    "OTEL_EXPORTER_OTLP_TRACES_HEADERS",
    "PAYLOAD_KEYS",
    "SERVER_KEYS",
    "TEMPORAL_API_KEY",
    "TEMPORAL_TLS_CLIENT_KEY_DATA",
)
"""Blotted out wherever they, or the secrets within them, would be quoted."""

SHORTEST_SECRET = 16
"""What is shorter is none, and might be an ordinary word."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wishes:
    """What was asked for on the command line."""

    processes: tuple[Process, ...]
    as_json: bool


def run(words: list[str]) -> int:
    """Look, and report: 0 if nothing failed, 1 if something did."""
    wishes = _read(words)
    # What libraries complain of while they try is what the report says in its own words.
    logging.basicConfig(level=logging.CRITICAL)
    reading = read(wishes.processes)
    looked = asyncio.run(examine(_examinations(reading), waiting=_say))
    findings = without_secrets([*reading.findings, *looked], _secrets(reading))
    sys.stdout.write(as_json(findings) if wishes.as_json else as_text(findings))
    return 0 if healthy(findings) else 1


def _read(words: list[str]) -> Wishes:
    parser = argparse.ArgumentParser(
        prog="onebox doctor",
        description="Look whether everything that the processes need is there: settings, PostgreSQL, "
        "Temporal, AWS, the register API. Changes nothing: EC2 is asked by dry runs. "
        "Exit code 1 if something failed, else 0.",
    )
    parser.add_argument(
        "--for",
        dest="processes",
        action="append",
        choices=[process.value for process in Process],
        metavar="PROCESS",
        help="only what this process needs: worker, api, migrate, codec (may be given again); else all",
    )
    parser.add_argument("--json", action="store_true", help="report to a machine")
    given = parser.parse_args(words)
    wanted = tuple(map(Process, given.processes or ())) or chosen(os.environ)
    return Wishes(processes=wanted, as_json=given.json)


def _examinations(reading: Reading) -> Sequence[Examination]:
    worker = reading.worker
    stored = reading.store is not None or not reading.usable("DATABASE_URL")
    found = [Examination(subject="database", look=lambda: _database(reading))] if stored else []
    if worker is None:
        return found

    async def boxes() -> Sequence[Finding]:
        if reading.usable("BOX_RUNTIME_COMMAND", "REGISTER_API_URL"):
            return list(box_rules.findings(worker))
        return [skipped("box", "the settings of boxes cannot be used")]

    async def register_api() -> Sequence[Finding]:
        if reading.usable("REGISTER_API_URL"):
            return await api.findings(worker.register_api_url)
        return [skipped("api.connection", "REGISTER_API_URL cannot be used")]

    return [
        Examination(subject="box", look=boxes),
        *found,
        Examination(subject="temporal", look=lambda: temporal.findings(worker)),
        Examination(subject="aws", look=lambda: aws.findings(worker, reading)),
        Examination(subject="api", look=register_api),
        Examination(subject="telemetry", look=traces.findings),
    ]


async def _database(reading: Reading) -> Sequence[Finding]:
    if reading.store is None or not reading.usable("DATABASE_URL"):
        return [skipped("database.connection", "DATABASE_URL cannot be used")]
    keyed = reading.worker or reading.api
    keys = keyed.keys if keyed is not None and reading.usable("SERVER_KEYS") else None
    url = reading.store.database_url.get_secret_value()
    return await database.findings(url, worker=reading.worker, api=reading.api, keys=keys)


def _secrets(reading: Reading) -> list[str]:
    """All that must not be shown, whole and in parts."""
    whole = [os.environ.get(name, "") for name in SECRET_VARIABLES]
    rings = [os.environ.get(name, "") for name in ("SERVER_KEYS", "PAYLOAD_KEYS")]
    keys = [entry.partition(":")[2].strip() for ring in rings for entry in ring.split(",")]
    password = ""
    if reading.store is not None:
        password = database.password_of(reading.store.database_url.get_secret_value())
    long_ones = [each for each in (*whole, *keys, temporal.api_key()) if len(each) >= SHORTEST_SECRET]
    return [*long_ones, password]


def _say(text: str) -> None:
    sys.stderr.write(f"onebox doctor: {text}\n")
