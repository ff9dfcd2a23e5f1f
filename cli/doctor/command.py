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

from cli.doctor import api, aws, database, temporal, tracing
from cli.doctor.checks import box
from cli.doctor.model import Finding, Process, healthy, skipped, without_secrets
from cli.doctor.report import as_json, as_text
from cli.doctor.runner import CheckGroup, run_checks
from cli.doctor.settings import LoadedSettings, default_processes, read

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

MIN_SECRET_LENGTH = 16
"""What is shorter is none, and might be an ordinary word."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CliOptions:
    """What was asked for on the command line."""

    processes: tuple[Process, ...]
    as_json: bool


def run(words: list[str]) -> int:
    """Look, and report: 0 if nothing failed, 1 if something did."""
    options = _parse(words)
    # What libraries complain of while they try is what the report says in its own words.
    logging.basicConfig(level=logging.CRITICAL)
    reading = read(options.processes)
    looked = asyncio.run(run_checks(_check_groups(reading), notify=_log))
    findings = without_secrets([*reading.findings, *looked], _secrets(reading))
    sys.stdout.write(as_json(findings) if options.as_json else as_text(findings))
    return 0 if healthy(findings) else 1


def _parse(words: list[str]) -> CliOptions:
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
    wanted = tuple(map(Process, given.processes or ())) or default_processes(os.environ)
    return CliOptions(processes=wanted, as_json=given.json)


def _check_groups(reading: LoadedSettings) -> Sequence[CheckGroup]:
    worker = reading.worker
    stored = reading.store is not None or not reading.usable("DATABASE_URL")
    found = [CheckGroup(subject="database", run=lambda: _database(reading))] if stored else []
    if worker is None:
        return found

    async def boxes() -> Sequence[Finding]:
        if reading.usable("BOX_RUNTIME_COMMAND", "REGISTER_API_URL"):
            return list(box.findings(worker))
        return [skipped("box", "the settings of boxes cannot be used")]

    async def register_api() -> Sequence[Finding]:
        if reading.usable("REGISTER_API_URL"):
            return await api.findings(worker.register_api_url)
        return [skipped("api.connection", "REGISTER_API_URL cannot be used")]

    return [
        CheckGroup(subject="box", run=boxes),
        *found,
        CheckGroup(subject="temporal", run=lambda: temporal.findings(worker)),
        CheckGroup(subject="aws", run=lambda: aws.findings(worker, reading)),
        CheckGroup(subject="api", run=register_api),
        CheckGroup(subject="telemetry", run=tracing.findings),
    ]


async def _database(reading: LoadedSettings) -> Sequence[Finding]:
    if reading.store is None or not reading.usable("DATABASE_URL"):
        return [skipped("database.connection", "DATABASE_URL cannot be used")]
    keyed = reading.worker or reading.api
    keys = keyed.keys if keyed is not None and reading.usable("SERVER_KEYS") else None
    url = reading.store.database_url.get_secret_value()
    return await database.findings(url, worker=reading.worker, api=reading.api, keys=keys)


def _secrets(reading: LoadedSettings) -> list[str]:
    """All that must not be shown, whole and in parts."""
    whole = [os.environ.get(name, "") for name in SECRET_VARIABLES]
    rings = [os.environ.get(name, "") for name in ("SERVER_KEYS", "PAYLOAD_KEYS")]
    keys = [entry.partition(":")[2].strip() for ring in rings for entry in ring.split(",")]
    password = ""
    if reading.store is not None:
        password = database.password_of(reading.store.database_url.get_secret_value())
    long_ones = [each for each in (*whole, *keys, temporal.api_key()) if len(each) >= MIN_SECRET_LENGTH]
    return [*long_ones, password]


def _log(text: str) -> None:
    sys.stderr.write(f"onebox doctor: {text}\n")
