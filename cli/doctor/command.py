"""The command `onebox doctor`: selects the checks for the given processes and prints the report."""

import argparse
import asyncio
import logging
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from cli.doctor import api, aws, box, database, temporal, tracing
from cli.doctor.model import Finding, Process, as_json, as_text, healthy, skipped, without_secrets
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
"""Variables whose values, or the secrets within them, are masked in messages."""

MIN_SECRET_LENGTH = 16
"""A shorter value may be an ordinary word of a message."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CliOptions:
    """The command-line options."""

    processes: tuple[Process, ...]
    as_json: bool


def run(arguments: list[str]) -> int:
    """Run the checks and print the report; return 1 if a check failed, else 0."""
    options = _parse(arguments)
    # The report covers what libraries log about failed connections.
    logging.basicConfig(level=logging.CRITICAL)
    settings = read(options.processes)
    found = asyncio.run(run_checks(_check_groups(settings), notify=_log))
    findings = without_secrets([*settings.findings, *found], _secrets(settings))
    sys.stdout.write(as_json(findings) if options.as_json else as_text(findings))
    return 0 if healthy(findings) else 1


def _parse(arguments: list[str]) -> CliOptions:
    parser = argparse.ArgumentParser(
        prog="onebox doctor",
        description="Check configuration and dependencies: settings, PostgreSQL, Temporal, AWS, the "
        "register API. Changes nothing: calls to EC2 are dry runs. Exit code 1 if a check failed, else 0.",
    )
    parser.add_argument(
        "--for",
        dest="processes",
        action="append",
        choices=[process.value for process in Process],
        metavar="PROCESS",
        help="check only what this process needs: worker, api, migrate or codec; may be repeated",
    )
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    options = parser.parse_args(arguments)
    processes = tuple(map(Process, options.processes or ())) or default_processes(os.environ)
    return CliOptions(processes=processes, as_json=options.json)


def _check_groups(settings: LoadedSettings) -> Sequence[CheckGroup]:
    worker = settings.worker
    has_database = settings.store is not None or not settings.usable("DATABASE_URL")
    found = [CheckGroup(subject="database", run=lambda: _database(settings))] if has_database else []
    if worker is None:
        return found

    async def boxes() -> Sequence[Finding]:
        if settings.usable("BOX_RUNTIME_COMMAND", "REGISTER_API_URL"):
            return list(box.findings(worker))
        return [skipped("box", "the settings of boxes are invalid")]

    async def register_api() -> Sequence[Finding]:
        if settings.usable("REGISTER_API_URL"):
            return await api.findings(worker.register_api_url)
        return [skipped("api.connection", "REGISTER_API_URL is invalid")]

    return [
        CheckGroup(subject="box", run=boxes),
        *found,
        CheckGroup(subject="temporal", run=lambda: temporal.findings(worker)),
        CheckGroup(subject="aws", run=lambda: aws.findings(worker, settings)),
        CheckGroup(subject="api", run=register_api),
        CheckGroup(subject="telemetry", run=tracing.findings),
    ]


async def _database(settings: LoadedSettings) -> Sequence[Finding]:
    if settings.store is None or not settings.usable("DATABASE_URL"):
        return [skipped("database.connection", "DATABASE_URL is invalid")]
    keyed = settings.worker or settings.api
    keys = keyed.keys if keyed is not None and settings.usable("SERVER_KEYS") else None
    url = settings.store.database_url.get_secret_value()
    return await database.findings(url, worker=settings.worker, api=settings.api, keys=keys)


def _secrets(settings: LoadedSettings) -> list[str]:
    """All secrets of the environment, including each key of a key ring."""
    whole = [os.environ.get(name, "") for name in SECRET_VARIABLES]
    rings = [os.environ.get(name, "") for name in ("SERVER_KEYS", "PAYLOAD_KEYS")]
    keys = [entry.partition(":")[2].strip() for ring in rings for entry in ring.split(",")]
    password = ""
    if settings.store is not None:
        password = database.password_of(settings.store.database_url.get_secret_value())
    long_ones = [each for each in (*whole, *keys, temporal.api_key()) if len(each) >= MIN_SECRET_LENGTH]
    return [*long_ones, password]


def _log(text: str) -> None:
    sys.stderr.write(f"onebox doctor: {text}\n")
