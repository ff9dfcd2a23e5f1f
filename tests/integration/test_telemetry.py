"""Metrics, alerts, traces and logs, from the real processes."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
from temporalio.bridge import temporal_sdk_bridge

from devstack.console import Console, eventually
from devstack.stack import Stack
from tests.integration.collector import Collector, Received
from tests.integration.conftest import SETTINGS
from tests.integration.watchdog import watched
from tests.integration.wire import Wire
from tests.stacks import hurried
from tests.telemetry.exported import Exported
from tests.telemetry.expressions import Asked, all_asked
from workflows.workspace.enums import Phase

pytestmark = pytest.mark.anyio

TELEMETRY = Path(__file__).parents[2] / "docs" / "telemetry.md"

WHEN_IT_HAPPENS = frozenset({"temporal_workflow_task_execution_failed_total"})
"""The SDK exports them only after their first occurrence; the test searches the SDK itself."""

FLIGHT = ("open_generation", "fence_instances", "launch", "address", "ask_canary")

REGISTER = "/registry/register"


@pytest.fixture(scope="module")
def wire() -> Iterator[Wire]:
    with Wire() as wire:
        yield wire


@pytest.fixture(scope="module")
def stack(wire: Wire, collector: Collector) -> Iterator[Stack]:
    """Only for this file: its metrics include no other test's workspaces, and no box of it becomes stale."""
    settings = SETTINGS | watched(wire, collector) | {"HEARTBEAT_STALE_SECONDS": "120"}
    with hurried(settings) as stack:
        wire.upstream = stack.register_api_url
        yield stack


async def scraped(stack: Stack) -> Exported:
    exported = Exported()
    async with httpx2.AsyncClient(trust_env=False, timeout=60) as http:
        for url in stack.metrics_urls.values():
            answer = await http.get(url)
            answer.raise_for_status()
            exported.take(answer.text)
    return exported


async def recreated(console: Console, wire: Wire, workspace: str) -> None:
    """Generation 2, by one accepted request and one that joined."""
    await console.start(workspace)
    await console.until_phase(workspace, Phase.ONLINE)
    # Its box's calls are delayed until both have requested.
    with wire.interfere(workspace, REGISTER, times=1000, delay=True):
        await console.ask(workspace, requested_by="admin:alice", request_id="the-wish", observed_generation=1)
        await console.ask(workspace, requested_by="watchdog", request_id="the-other", observed_generation=1)
    await console.until_phase(workspace, Phase.ONLINE, generation=2)


async def test_an_outcome_a_launch_and_a_change_of_address_are_counted_once(
    stack: Stack, console: Console, wire: Wire, workspace: str
) -> None:
    # Work of earlier tests is counted to its end.
    before = await eventually(
        lambda: scraped(stack),
        lambda now: (
            now.value("onebox_time_to_online_seconds_count") == now.value("onebox_generations_opened_total")
        ),
    )
    await recreated(console, wire, workspace)
    accepted = {"kind": "recreate", "outcome": "accepted", "source": "human"}
    joined = {"kind": "recreate", "outcome": "joined", "source": "automatic"}
    launched = {"service": "ec2", "operation": "RunInstances", "code": "ok"}
    wanted: list[tuple[str, dict[str, str], int]] = [
        ("onebox_requests_total", accepted, 1),
        ("onebox_requests_total", joined, 1),
        ("onebox_generations_opened_total", {}, 2),
        ("onebox_time_to_online_seconds_count", {}, 2),
        ("onebox_dns_changes_total", {"change": "point"}, 2),
        ("onebox_aws_calls_total", launched, 2),
        ("onebox_register_calls_total", {"code": "minted", "identity": "current"}, 2),
        ("onebox_first_heartbeats_total", {}, 2),
    ]

    def grown(now: Exported) -> list[float]:
        return [now.value(name, **labels) - before.value(name, **labels) for name, labels, _ in wanted]

    # Each process updates its counters a moment after the event.
    after = await eventually(
        lambda: scraped(stack),
        lambda now: all(number >= least for number, (_, _, least) in zip(grown(now), wanted, strict=True)),
    )
    assert grown(after) == [number for _, _, number in wanted]


async def test_alerts_and_dashboard_ask_for_what_is_exported_and_use_it_as_what_it_is(
    stack: Stack, console: Console, wire: Wire, workspace: str
) -> None:
    await recreated(console, wire, workspace)
    # Some series exist only after a failed attempt of an activity. A launch always calls EC2; an old
    # box may have ended itself, told by the register API, before the workflow terminates it.
    console.aws.inject("RunInstances", "error", code="InternalError", times=1, workspace=workspace)
    await console.ask(workspace, requested_by="admin:alice", observed_generation=2)
    await console.until_phase(workspace, Phase.ONLINE, generation=3)
    failed = {"activity": "launch", "code": "InternalError"}
    exported = await eventually(
        lambda: scraped(stack),  # the gauges are read every few seconds
        lambda now: (
            now.value("onebox_fleet_metrics_timestamp_seconds") > 0
            and now.value("onebox_activity_failures_total", **failed) > 0
        ),
    )
    faults = [fault for asked in all_asked() for fault in _faults(asked, exported)]
    assert faults == []


def _faults(asked: Asked, exported: Exported) -> Iterator[str]:
    sdk = Path(temporal_sdk_bridge.__file__).read_bytes()
    for use in asked.uses:
        where = f"{asked.where}: {use.name}"
        if use.name == "up":
            continue
        if use.name in WHEN_IT_HAPPENS:
            if use.name.removeprefix("temporal_").removesuffix("_total").encode() not in sdk:
                yield f"{where} is unknown to the SDK"
            continue
        kind = exported.types.get(use.name)
        if kind is None:
            yield f"{where} is exported by nobody"
            continue
        unknown = use.labels - exported.labels[use.name]
        if unknown:
            yield f"{where} has no label {', '.join(sorted(unknown))}"
        if use.rated != (kind in ("counter", "histogram")):
            yield f"{where} is a {kind}: " + (
                "it has no rate" if use.rated else "only its rate says anything"
            )
        if use.quantile and not (kind == "histogram" and use.name.endswith("_bucket") and "le" in use.labels):
            yield f"{where} has no quantiles"


async def test_the_documentation_lists_every_metric_and_no_other(stack: Stack) -> None:
    documented = set(re.findall(r"^\| `(onebox_\w+)`", TELEMETRY.read_text(), re.MULTILINE))
    assert documented == (await scraped(stack)).ours


async def test_the_invariants_are_read_from_ec2_and_from_the_record(
    stack: Stack, console: Console, workspace: str
) -> None:
    await console.start(workspace)
    await console.until_phase(workspace, Phase.ONLINE)
    [row] = await console.rows("SELECT count(*) AS running FROM generations WHERE superseded_at IS NULL")
    exported = await eventually(
        lambda: scraped(stack),
        # The last gauges may show the generation as open and its box as in progress.
        lambda now: (
            now.value("onebox_generations_current") >= int(str(row["running"]))
            and now.value("onebox_live_tokens_per_generation_max") >= 1
            and now.value("onebox_workspaces", phase="online") >= 1
        ),
    )
    for invariant in ("I1", "I4", "I10"):
        assert exported.value("onebox_invariant_violations", invariant=invariant) == 0


async def test_one_trace_spans_the_request_the_steps_and_the_registration(
    console: Console, collector: Collector, wire: Wire, workspace: str
) -> None:
    await recreated(console, wire, workspace)
    wanted = {"recreate", "request accepted", "request joined", "register", "first heartbeat", *FLIGHT}

    async def look() -> list[Received]:
        return collector.of(workspace, 2)

    spans = await eventually(look, lambda seen: {span.name for span in seen} >= wanted)
    flight = [span for span in spans if span.name in wanted]
    assert len({span.trace_id for span in flight}) == 1
    [whole] = [span for span in flight if span.name == "recreate"]
    assert whole.parent_id == ""
    assert {span.parent_id for span in flight if span is not whole} == {whole.span_id}
    assert {span.service for span in flight} == {"onebox-worker", "onebox-api"}
    accepted = next(span for span in flight if span.name == "request accepted")
    assert accepted.attributes["onebox.request_id"] == "the-wish"
    launch = next(span for span in flight if span.name == "launch")
    assert launch.attributes["onebox.request_id"] == "the-wish"
    assert whole.start <= min(span.start for span in flight)
    trace = collector.in_trace(whole.trace_id)
    assert "ec2 RunInstances" in {span.name for span in trace if span.parent_id == launch.span_id}
    other = collector.of(workspace, 1)
    assert whole.trace_id not in {span.trace_id for span in other if span.name == "launch"}


async def test_every_line_about_a_workspace_says_which_workflow_generation_and_request(
    stack: Stack, console: Console, wire: Wire, workspace: str
) -> None:
    await recreated(console, wire, workspace)
    lines = [
        json.loads(line)
        for name in ("worker", "api")
        for line in stack.log(name)
        .read_text()
        .rpartition("\n")[0]
        .splitlines()  # the last one may be incomplete
        if f'"{workspace}"' in line and line.startswith("{")
    ]
    assert {"generation.opened", "instance.launched", "register.answered"} <= {it["event"] for it in lines}
    for line in lines:
        assert line["workspace"] == workspace, line
        assert line["workflow_id"] == workspace, line
        if "activity" in line:
            assert line["run_id"], line
            if line["event"] != "workspace.enrolled":
                assert line["generation"], line
        if line["logger"].startswith("register_api"):
            assert line["request_id"], line
    flight = [line for line in lines if "activity" in line and line.get("generation") == 2]
    assert {line["request_id"] for line in flight if line["event"] != "request.recorded"} == {"the-wish"}


async def test_metrics_are_not_served_on_the_public_port(stack: Stack, console: Console) -> None:
    assert (await console.http.get("/metrics")).status_code == 404
