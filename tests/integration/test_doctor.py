"""`onebox doctor` on the whole stack: a healthy stack passes, and each planted misconfiguration is named."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from urllib.parse import urlsplit

import psycopg
import pytest
from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.workflowservice.v1 import DeleteWorkflowExecutionRequest
from temporalio.client import Client

from cli.doctor import command
from devstack.aws.client import AwsEndpoint
from devstack.aws.values import Outcome
from devstack.console import Console, eventually
from devstack.processes import free_port
from devstack.stack import Stack
from tests.integration.misconfigurations import NO_KEY, PLANTED, Planted
from tests.integration.test_operating import temporal
from tests.integration.watchdog import CANARY_SECRET_KEY
from workflows.shared.encryption import PayloadKeys, converter
from workflows.shared.names import WATCHDOG_SCHEDULE
from workflows.workspace.enums import Phase

pytestmark = pytest.mark.anyio


@dataclass(frozen=True, kw_only=True)
class Report:
    """The doctor's report."""

    code: int
    findings: dict[str, dict[str, object]]
    text: str

    def status(self, check: str) -> str:
        return str(self.findings[check]["status"])

    def failures(self) -> set[str]:
        return {name for name, one in self.findings.items() if one["status"] == "failed"}


Doctor = Callable[..., Report]
"""Called with the environment and the arguments."""


@pytest.fixture
def doctor(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Doctor:
    """Run it in this process with the environment of the stack's processes."""

    def run(environment: Mapping[str, str], *words: str) -> Report:
        with monkeypatch.context() as patched, ThreadPoolExecutor(1) as thread:
            for name in set(os.environ) - set(environment):
                patched.delenv(name)
            for name, value in environment.items():
                patched.setenv(name, value)
            capsys.readouterr()
            # On a thread, which has no event loop.
            code = thread.submit(command.run, ["--json", *words]).result()
        said = capsys.readouterr()
        listed = json.loads(said.out)["findings"]
        findings = {str(one["check"]): one for one in listed}
        assert len(findings) == len(listed), "a check is listed twice"
        return Report(code=code, findings=findings, text=said.out + said.err)

    return run


@pytest.fixture(scope="session")
def places(stack: Stack) -> Iterator[dict[str, str]]:
    """Values for planted settings: an empty database, a bare namespace, an unused port."""
    temporal(stack, "operator", "namespace", "create", "--namespace", "bare", "--retention", "1d")
    with psycopg.connect(stack.database_url, autocommit=True) as connection:
        connection.execute("CREATE DATABASE unmigrated")
    parts = urlsplit(stack.database_url)
    yield {
        "database": f"{parts.hostname}:{parts.port}",
        "unmigrated": stack.database_url.rpartition("/")[0] + "/unmigrated",
        "bare": "bare",
        "free": str(free_port()),
        "aws": stack.aws_url,
    }
    with psycopg.connect(stack.database_url, autocommit=True) as connection:
        connection.execute("DROP DATABASE unmigrated WITH (FORCE)")


@pytest.fixture
async def one_box(stack: Stack, console: Console, lasting: str, places: dict[str, str]) -> None:
    """A box with a key derived from the stack's server key."""
    if not await console.rows("SELECT 1 FROM workspaces WHERE workspace_id = %s", lasting):
        await console.start(lasting)
    await console.until_phase(lasting, Phase.ONLINE)


def planted_environment(stack: Stack, places: Mapping[str, str], planted: Planted) -> dict[str, str]:
    environment = dict(stack.environment)
    for name, value in planted.change.items():
        if value is None:
            del environment[name]
        else:
            environment[name] = value.format(**places)
    return environment


async def test_a_healthy_stack_has_nothing_to_fix(stack: Stack, one_box: None, doctor: Doctor) -> None:
    report = doctor(stack.environment)
    told = {name: one for name, one in report.findings.items() if one["status"] not in ("ok", "skipped")}
    assert told == {}
    assert report.code == 0
    assert {"settings.worker", "settings.api", "database.schema", "temporal.task_queues"} <= set(
        report.findings
    )
    assert report.status("ec2.RunInstances") == "ok"
    assert report.status("ec2.TerminateInstances") == "ok"
    assert report.status("route53.change") == "ok"
    assert report.status("api.ready") == "ok"
    assert report.status("database.server_keys") == "ok"


async def test_looking_changes_nothing(
    stack: Stack, console: Console, lasting: str, one_box: None, doctor: Doctor
) -> None:
    before, since = console.aws.counts(lasting), len(console.aws.journal())
    doctor(stack.environment)
    after, entries = console.aws.counts(lasting), console.aws.journal(since=since)
    assert after == before
    # Workspaces of other tests may still be terminating.
    rows = await console.rows("SELECT workspace_id FROM workspaces")
    theirs = {row["workspace_id"] for row in rows}
    changes = ("RunInstances", "ChangeResourceRecordSets", "CreateSnapshot")
    assert [
        entry
        for entry in entries
        if entry.action in changes and entry.outcome != Outcome.REFUSED and entry.workspace not in theirs
    ] == []
    assert not [one for one in console.aws.instances() if one.workspace == "onebox-doctor"]


@pytest.mark.parametrize("name", PLANTED)
async def test_a_planted_misconfiguration_is_found_and_its_remedy_named(
    name: str, stack: Stack, console: Console, places: dict[str, str], one_box: None, doctor: Doctor
) -> None:
    planted = PLANTED[name]
    if planted.denied:
        deny(console.aws, planted.denied)
    report = doctor(planted_environment(stack, places, planted))
    assert report.code == 1
    assert report.failures() == {planted.check, *planted.also}
    assert planted.remedy in str(report.findings[planted.check]["remedy"])
    named: set[str] = set()
    for check in report.failures():
        variables = report.findings[check]["variables"]
        assert isinstance(variables, list)
        named.update(variables)
    assert set(planted.change) <= named or planted.denied
    # The other checks still ran.
    subjects = {check.partition(".")[0] for check, one in report.findings.items() if one["status"] == "ok"}
    assert len(subjects) >= 5
    for secret in ("n0t-the-passw0rd", NO_KEY, CANARY_SECRET_KEY, stack.operator_token, "this-is-a-token"):
        assert secret not in report.text


def deny(aws: AwsEndpoint, action: str) -> None:
    service = "AccessDenied" if action == "ChangeResourceRecordSets" else "UnauthorizedOperation"
    aws.inject(action, "error", code=service, status=403, times=None)


async def test_what_only_some_workspaces_need_is_a_warning(
    stack: Stack, console: Console, one_box: None, doctor: Doctor
) -> None:
    deny(console.aws, "CreateVolume")
    report = doctor(stack.environment)
    assert report.code == 0
    assert report.status("ec2.CreateVolume") == "warning"


async def test_a_paused_watchdog_and_a_missing_worker_are_said_and_are_no_failures(
    stack: Stack, console: Console, places: dict[str, str], one_box: None, doctor: Doctor
) -> None:
    handle = console.client.get_schedule_handle(WATCHDOG_SCHEDULE)
    await handle.pause(note="moving the network")
    try:
        report = doctor(stack.environment)
    finally:
        await handle.unpause()
    assert report.code == 0
    paused = report.findings[f"temporal.schedule.{WATCHDOG_SCHEDULE}"]
    assert paused["status"] == "warning"
    assert "moving the network" in str(paused["message"])
    assert "--unpause" in str(paused["remedy"])

    elsewhere = doctor({**stack.environment, "TEMPORAL_NAMESPACE": places["bare"]})
    assert elsewhere.status("temporal.task_queues") == "warning"


async def forget(client: Client, workflow_id: str) -> None:
    """Delete a workflow and wait until no list contains it."""
    await client.workflow_service.delete_workflow_execution(
        DeleteWorkflowExecutionRequest(
            namespace=client.namespace, workflow_execution=WorkflowExecution(workflow_id=workflow_id)
        )
    )

    async def listed() -> int:
        return (await client.count_workflows(f"WorkflowId = '{workflow_id}'")).count

    await eventually(listed, lambda count: count == 0)


async def test_a_payload_key_that_was_taken_out_too_early_is_named(
    stack: Stack, console: Console, one_box: None, doctor: Doctor
) -> None:
    """A workspace whose memo was encrypted with a lost key, on a task queue without workers."""
    keys = PayloadKeys.parse(f"gone:{NO_KEY * 2}")
    client = await Client.connect(stack.temporal_address, data_converter=converter(keys))
    handle = await client.start_workflow(
        "WorkspaceWorkflow", id="of-a-lost-key", task_queue="nobodys", memo={"Why": "a word"}
    )
    try:
        report = await eventually(
            lambda: asyncio.to_thread(doctor, stack.environment), lambda seen: bool(seen.failures())
        )
    finally:
        await forget(
            client, handle.id
        )  # later tests that read all histories of this stack could not read this one
    assert report.failures() == {"temporal.payload_keys"}
    found = report.findings["temporal.payload_keys"]
    assert "'gone'" in str(found["remedy"])
    assert found["variables"] == ["PAYLOAD_KEYS"]


async def test_a_process_is_not_asked_for_what_another_one_needs(
    stack: Stack, one_box: None, doctor: Doctor
) -> None:
    environment = {
        name: value
        for name, value in stack.environment.items()
        if not name.startswith(("AWS_", "BOX_", "DNS_", "TEMPORAL_")) and name != "REGISTER_API_URL"
    }
    report = doctor(environment, "--for", "api", "--for", "migrate")
    assert report.code == 0
    assert {check.partition(".")[0] for check in report.findings} == {"settings", "database"}
    assert "settings.DNS_ZONE_ID" in doctor(environment).failures()


async def test_a_misspelt_variable_is_pointed_at(stack: Stack, one_box: None, doctor: Doctor) -> None:
    report = doctor({**stack.environment, "BOX_SUBNET_ID": "subnet-1"})
    assert report.code == 0
    assert "BOX_SUBNET_IDS" in str(report.findings["settings.BOX_SUBNET_ID"]["remedy"])


def test_people_get_a_line_for_each_check_and_the_remedy_below(stack: Stack) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "cli", "doctor"],
        capture_output=True,
        text=True,
        timeout=100,
        env={**stack.environment, "DNS_ZONE_NAME": "boxes.example"},
    )
    assert done.returncode == 1
    lines = done.stdout.splitlines()
    [number] = [number for number, line in enumerate(lines) if line.startswith("FAILED")]
    assert "route53.zone" in lines[number]
    assert "→ Set DNS_ZONE_NAME to boxes.internal" in lines[number + 1]
    assert lines[-1].endswith("1 failed")
