"""What the doctor makes of what it saw, without any server."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from cli.doctor.checks import database, temporal
from cli.doctor.checks.database import DatabaseAddress, DatabaseState
from cli.doctor.checks.temporal import TaskQueueState
from cli.doctor.model import Finding, Status, clock_skew_seconds, failed, ok, without_secrets

HERE = DatabaseAddress(host="127.0.0.1", port="5432", database="onebox", user="onebox")
FAR = replace(HERE, host="db.example")
WELL = DatabaseState(
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
    allowed=200,
    used=10,
    keys=(("k1", 3),),
)
NOON = datetime(2026, 11, 26, 12, tzinfo=UTC)


def found(seen: DatabaseState, check: str, place: DatabaseAddress = FAR) -> Finding:
    findings = database.findings(seen, place, own_pool=10, other_pool=16)
    return next(each for each in findings if each.check == check)


def test_a_healthy_database_has_nothing_to_fix() -> None:
    findings = database.findings(WELL, FAR, own_pool=10, other_pool=16)
    assert {each.status for each in findings} == {Status.OK}


@pytest.mark.parametrize(
    ("seen", "check", "status", "remedy"),
    [
        (replace(WELL, read_only=True), "database.schema", Status.FAILED, "primary"),
        (replace(WELL, pending=("0007_orphans",)), "database.schema", Status.FAILED, "onebox migrate"),
        (
            replace(WELL, pending=("0007_orphans",), may_create=False),
            "database.schema",
            Status.FAILED,
            "may CREATE",
        ),
        (replace(WELL, changed=("0001_initial",)), "database.schema", Status.FAILED, "Restore"),
        (replace(WELL, unknown=("0042_later",)), "database.schema", Status.WARNING, "newer code"),
        (replace(WELL, forbidden=("heartbeats",)), "database.privileges", Status.FAILED, "GRANT"),
        (replace(WELL, skew_seconds=-40.0), "database.clock", Status.FAILED, "NTP"),
        (replace(WELL, skew_seconds=5.0), "database.clock", Status.WARNING, "NTP"),
        (replace(WELL, allowed=20), "database.connections", Status.FAILED, "max_connections"),
        (replace(WELL, allowed=40), "database.connections", Status.WARNING, "max_connections"),
        (replace(WELL, encrypted=False), "database.tls", Status.WARNING, "sslmode"),
        (replace(WELL, major=13, version="13.1"), "database.version", Status.WARNING, "Upgrade"),
    ],
)
def test_what_is_wrong_with_a_database_has_a_remedy(
    seen: DatabaseState, check: str, status: Status, remedy: str
) -> None:
    finding = found(seen, check)
    assert finding.status is status
    assert remedy in finding.remedy


def test_an_unencrypted_connection_within_one_machine_is_no_matter() -> None:
    assert found(replace(WELL, encrypted=False), "database.tls", HERE).status is Status.OK


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('FATAL:  password authentication failed for user "onebox"', "does not accept the password"),
        ('FATAL:  database "onebox" does not exist', "no such database"),
        ("connection failed: Connection refused", "nothing listens"),
        ("connection timeout expired", "does not answer"),
        ("failed to resolve host 'db.example'", "not known"),
        ('no pg_hba.conf entry for host "10.0.0.1", no encryption', "refuses this kind"),
        ("FATAL: remaining connection slots are reserved", "no connection left"),
    ],
)
def test_why_there_is_no_connection_is_said_in_plain_words(text: str, message: str) -> None:
    finding = database.unreachable(text, FAR)
    assert message in finding.message
    assert finding.variables == ("DATABASE_URL",)


def test_a_key_that_current_boxes_were_made_by_is_missed() -> None:
    assert database.keys(WELL, frozenset({"k1", "k2"})).status is Status.OK
    missed = database.keys(WELL, frozenset({"k2"}))
    assert missed.status is Status.FAILED
    assert "3 of key 'k1'" in missed.message


@pytest.mark.parametrize(
    ("text", "variable"),
    [
        ("Unauthenticated: Request unauthorized", "TEMPORAL_API_KEY"),
        ("transport error: received corrupt message of type InvalidContentType", "TEMPORAL_TLS"),
        ("tcp connect error: Connection refused", "TEMPORAL_ADDRESS"),
    ],
)
def test_a_temporal_server_that_cannot_be_reached_has_its_variable_named(text: str, variable: str) -> None:
    assert temporal.unreachable(text, "cloud.example:7233").variables == (variable,)


def test_a_short_retention_is_a_warning_outside_of_development() -> None:
    day = timedelta(days=1)
    assert temporal.namespace("default", day, development=True).status is Status.OK
    assert temporal.namespace("default", day, development=False).status is Status.WARNING


def test_a_search_attribute_of_another_type_does_not_pass() -> None:
    wanted = {"WorkspaceGeneration": "Int"}
    finding = temporal.search_attributes(wanted, {"WorkspaceGeneration": "Keyword"})
    assert finding.status is Status.FAILED


def test_a_queue_that_nobody_polls_is_named() -> None:
    idle = TaskQueueState(name="workspaces-ec2", kind="activities", pollers=0)
    busy = TaskQueueState(name="workspaces", kind="workflows", pollers=2)
    finding = temporal.queues([busy, idle])
    assert finding.status is Status.WARNING
    assert "workspaces-ec2" in finding.message


@pytest.mark.parametrize(("seconds", "ahead"), [(-3, -3.0), (0, 0.0), (2, 0.0), (4, 0.0), (9, 5.0)])
def test_a_slow_answer_is_not_taken_for_a_wrong_clock(seconds: int, ahead: float) -> None:
    theirs = NOON + timedelta(seconds=seconds)
    assert clock_skew_seconds(theirs, NOON, NOON + timedelta(seconds=4)) == ahead


def test_secrets_are_blotted_out_and_the_longer_one_first() -> None:
    quoted = failed("x", "postgresql://u:hunter2@host and hunter2", "see hunter2.md")
    [shown] = without_secrets([quoted], ["hunter2", "postgresql://u:hunter2@host", ""])
    assert shown.message == "*** and ***"
    assert without_secrets([ok("y", "nothing")], ["hunter2"]) == [ok("y", "nothing")]
