"""Findings about a database, derived from its state."""

from dataclasses import replace

import pytest

from cli.doctor import database
from cli.doctor.database import DatabaseAddress, DatabaseState
from cli.doctor.model import Finding, Status

HERE = DatabaseAddress(host="127.0.0.1", port="5432", database="onebox", user="onebox")
FAR = replace(HERE, host="db.example")
HEALTHY = DatabaseState(
    major=18,
    version="18.0",
    encrypted=True,
    read_only=False,
    pending=(),
    unknown=(),
    changed=(),
    may_create=True,
    forbidden=(),
    skew_seconds=0.0,
    max_connections=200,
    used_connections=10,
    keys=(("k1", 3),),
)


def found(state: DatabaseState, check: str, address: DatabaseAddress = FAR) -> Finding:
    findings = database.check_state(state, address, own_pool=10, other_pool=16)
    return next(each for each in findings if each.check == check)


@pytest.mark.parametrize(
    ("state", "check", "status", "remedy"),
    [
        (replace(HEALTHY, read_only=True), "database.schema", Status.FAILED, "primary"),
        (replace(HEALTHY, pending=("0007_orphans",)), "database.schema", Status.FAILED, "onebox migrate"),
        (
            replace(HEALTHY, pending=("0007_orphans",), may_create=False),
            "database.schema",
            Status.FAILED,
            "may CREATE",
        ),
        (replace(HEALTHY, changed=("0001_initial",)), "database.schema", Status.FAILED, "Restore"),
        (replace(HEALTHY, unknown=("0042_later",)), "database.schema", Status.WARNING, "newer code"),
        (replace(HEALTHY, forbidden=("heartbeats",)), "database.privileges", Status.FAILED, "GRANT"),
        (replace(HEALTHY, skew_seconds=-40.0), "database.clock", Status.FAILED, "NTP"),
        (replace(HEALTHY, skew_seconds=5.0), "database.clock", Status.WARNING, "NTP"),
        (replace(HEALTHY, max_connections=20), "database.connections", Status.FAILED, "max_connections"),
        (replace(HEALTHY, max_connections=40), "database.connections", Status.WARNING, "max_connections"),
        (replace(HEALTHY, encrypted=False), "database.tls", Status.WARNING, "sslmode"),
        (replace(HEALTHY, major=13, version="13.1"), "database.version", Status.WARNING, "Upgrade"),
    ],
)
def test_a_database_problem_has_a_remedy(
    state: DatabaseState, check: str, status: Status, remedy: str
) -> None:
    finding = found(state, check)
    assert finding.status is status
    assert remedy in finding.remedy


def test_an_unencrypted_local_connection_is_ok() -> None:
    assert found(replace(HEALTHY, encrypted=False), "database.tls", HERE).status is Status.OK


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('FATAL:  password authentication failed for user "onebox"', "does not accept the password"),
        ('FATAL:  database "onebox" does not exist', "no such database"),
        ("connection failed: Connection refused", "nothing listens"),
        ("connection timeout expired", "does not answer"),
        ("failed to resolve host 'db.example'", "not known"),
        ('no pg_hba.conf entry for host "10.0.0.1", no encryption', "refuses this kind"),
        ("FATAL: remaining connection slots are reserved", "no free connection"),
    ],
)
def test_a_connection_error_is_explained(text: str, message: str) -> None:
    finding = database.connection_error(text, FAR)
    assert message in finding.message
    assert finding.variables == ("DATABASE_URL",)
