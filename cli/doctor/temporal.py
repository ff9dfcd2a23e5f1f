"""Checks the Temporal server as the worker reaches it, with read-only calls."""

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

from temporalio.api.enums.v1 import IndexedValueType, TaskQueueType
from temporalio.api.operatorservice.v1 import ListSearchAttributesRequest
from temporalio.api.taskqueue.v1 import TaskQueue
from temporalio.api.workflowservice.v1 import DescribeNamespaceRequest, DescribeTaskQueueRequest
from temporalio.client import Client
from temporalio.envconfig import ClientConfig
from temporalio.service import RPCError, RPCStatusCode

from cli.doctor import versions
from cli.doctor.model import Finding, failed, ok, skipped, warning
from cli.doctor.versions import Version
from workers import wiring
from workers.settings.common import InvalidSettings
from workers.settings.worker import WorkerSettings
from workflows.shared.names import (
    DELEGATIONS_TASK_QUEUE,
    EC2_TASK_QUEUE,
    REPAIR_SCHEDULE,
    SEARCH_ATTRIBUTES,
    SWEEP_SCHEDULE,
    TASK_QUEUE,
    WATCHDOG_SCHEDULE,
)

RPC_SECONDS = timedelta(seconds=10)

CONNECT_SECONDS = 10.0
"""The SDK retries for a while."""

MIN_RETENTION = timedelta(days=3)
"""A weekend: on Monday, the runs that closed on Friday must still be there."""

WORKFLOW = TaskQueueType.TASK_QUEUE_TYPE_WORKFLOW
ACTIVITY = TaskQueueType.TASK_QUEUE_TYPE_ACTIVITY

QUEUES = (
    (TASK_QUEUE, WORKFLOW),
    (TASK_QUEUE, ACTIVITY),
    (EC2_TASK_QUEUE, ACTIVITY),
    (DELEGATIONS_TASK_QUEUE, WORKFLOW),
    (DELEGATIONS_TASK_QUEUE, ACTIVITY),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskQueueState:
    """A task queue and the number of workers that poll it."""

    name: str
    kind: str
    pollers: int
    current: Version | None = None
    """The version that gets its work; None if workers are not versioned."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduleState:
    """A schedule; `paused` is None if it does not exist."""

    schedule_id: str
    paused: bool | None
    note: str = ""


def api_key() -> str:
    """The API key of the Temporal profile; empty if there is none or the profile is invalid."""
    try:
        return ClientConfig.load_client_connect_config().get("api_key", "")
    except (RuntimeError, OSError, ValueError):
        return ""


async def findings(worker: WorkerSettings) -> list[Finding]:
    """All checks of the Temporal server."""
    try:
        address = ClientConfig.load_client_connect_config().get("target_host", wiring.DEFAULT_TARGET)
    except (RuntimeError, OSError, ValueError) as error:
        remedy = "Correct the TEMPORAL_* variables, or the file that TEMPORAL_CONFIG_FILE names."
        return [failed("temporal.settings", str(error), remedy, "TEMPORAL_CONFIG_FILE")]
    try:
        client = await asyncio.wait_for(wiring.connect(), CONNECT_SECONDS)
    except InvalidSettings:
        return [skipped("temporal.connection", "PAYLOAD_KEYS is invalid")]  # reported by the settings check
    except TimeoutError:
        error_text = "no answer"
    except (RPCError, RuntimeError, OSError, ValueError) as error:
        error_text = " ".join(str(error).split())[:300]
    else:
        return await _check_server(client, address, worker)
    return [connection_error(error_text, address), skipped("temporal.namespace", "not reached")]


async def _check_server(client: Client, address: str, worker: WorkerSettings) -> list[Finding]:
    found = [ok("temporal.connection", f"{address}, as {client.identity}")]
    try:
        request = DescribeNamespaceRequest(namespace=client.namespace)
        described = await client.workflow_service.describe_namespace(request, timeout=RPC_SECONDS)
    except RPCError as error:
        if error.status is RPCStatusCode.NOT_FOUND:
            found.append(_no_namespace(client.namespace, address))
        else:
            found.append(_refused("temporal.namespace", error))
        return [*found, skipped("temporal.search_attributes", "the namespace is not available")]
    retention = described.config.workflow_execution_retention_ttl.ToTimedelta()
    # A development stack may have any retention.
    development = worker.allow_loopback_targets
    found.append(check_retention(client.namespace, retention, development=development))
    found.append(await _search_attributes(client))
    queues = await _read_queues(client)
    found.append(queues if isinstance(queues, Finding) else check_queues(queues))
    routed = None if isinstance(queues, Finding) else queues[0].current
    found.append(await versions.findings(client, worker.deployment_version, routed=routed))
    found.append(await versions.payload_keys(client, worker.payload_key_ring))
    found += await _schedules(client)
    return found


def connection_error(text: str, address: str) -> Finding:
    """Why no connection was made, derived from the SDK's error text."""
    check, lower = "temporal.connection", text.lower()
    if any(sign in lower for sign in ("unauthenticated", "unauthorized", "permission_denied", "jwt")):
        return failed(
            check,
            f"{address} does not accept our credentials",
            "Correct TEMPORAL_API_KEY, or the client certificate (TEMPORAL_TLS_CLIENT_CERT_PATH).",
            "TEMPORAL_API_KEY",
        )
    if any(sign in lower for sign in ("tls", "certificate", "handshake", "invalidcontenttype")):
        return failed(
            check,
            f"TLS with {address} fails: {text}",
            "Set TEMPORAL_TLS to true if the server uses TLS, else to false. For a private certificate "
            "authority set TEMPORAL_TLS_SERVER_CA_CERT_PATH.",
            "TEMPORAL_TLS",
        )
    return failed(
        check,
        f"{address} cannot be reached: {text}",
        "Start the Temporal server, or correct TEMPORAL_ADDRESS (host:port). With TLS, set TEMPORAL_TLS.",
        "TEMPORAL_ADDRESS",
    )


def _no_namespace(namespace: str, address: str) -> Finding:
    return failed(
        "temporal.namespace",
        f"{address} has no namespace {namespace!r}",
        "Run deploy/temporal-namespace.sh to create it, or correct TEMPORAL_NAMESPACE.",
        "TEMPORAL_NAMESPACE",
    )


def check_retention(namespace: str, retention: timedelta, *, development: bool) -> Finding:
    """Whether closed runs are kept long enough."""
    message = f"{namespace!r} keeps closed runs for {retention.total_seconds() / 86_400:g} days"
    if retention < MIN_RETENTION and not development:
        return warning(
            "temporal.namespace",
            f"{message}, which is too short to investigate an incident",
            f"`temporal operator namespace update --namespace {namespace} --retention 30d`",
            "TEMPORAL_NAMESPACE",
        )
    return ok("temporal.namespace", message)


async def _search_attributes(client: Client) -> Finding:
    wanted = {key.name: key.indexed_value_type.name.title() for key in SEARCH_ATTRIBUTES}
    try:
        request = ListSearchAttributesRequest(namespace=client.namespace)
        listed = await client.operator_service.list_search_attributes(request, timeout=RPC_SECONDS)
    except RPCError as error:
        if error.status in (RPCStatusCode.UNIMPLEMENTED, RPCStatusCode.PERMISSION_DENIED):
            return await _search_attributes_by_query(client, wanted)  # Temporal Cloud has no operator service
        return _refused("temporal.search_attributes", error)
    known = {name: _type_name(kind) for name, kind in listed.custom_attributes.items()}
    return check_search_attributes(wanted, known)


async def _search_attributes_by_query(client: Client, wanted: dict[str, str]) -> Finding:
    """Check with a query for each attribute: the server refuses queries for unregistered ones."""
    known: dict[str, str] = {}
    for name, kind in wanted.items():
        value = "0" if kind == "Int" else "'x'"
        try:
            await client.count_workflows(f"{name} = {value}", rpc_timeout=RPC_SECONDS)
        except RPCError as error:
            if error.status is not RPCStatusCode.INVALID_ARGUMENT:
                return _refused("temporal.search_attributes", error)
        else:
            known[name] = kind
    return check_search_attributes(wanted, known)


def check_search_attributes(wanted: Mapping[str, str], known: Mapping[str, str]) -> Finding:
    """Whether all search attributes are registered with the right type."""
    check = "temporal.search_attributes"
    missing = [name for name in wanted if name not in known]
    mistyped = [
        f"{name} is {known[name]}, not {kind}"
        for name, kind in wanted.items()
        if known.get(name, kind) != kind
    ]
    if missing:
        options = " ".join(f"--name {name} --type {wanted[name]}" for name in missing)
        return failed(
            check,
            f"the namespace does not have {', '.join(missing)}: workflows that set them get stuck",
            f"Run deploy/temporal-namespace.sh, or `temporal operator search-attribute create {options}`.",
            "TEMPORAL_NAMESPACE",
        )
    if mistyped:
        return failed(
            check,
            "; ".join(mistyped),
            "Remove them (`temporal operator search-attribute remove`), run deploy/temporal-namespace.sh.",
            "TEMPORAL_NAMESPACE",
        )
    return ok(check, f"all {len(wanted)} are registered")


async def _read_queues(client: Client) -> list[TaskQueueState] | Finding:
    states: list[TaskQueueState] = []
    for name, kind in QUEUES:
        request = DescribeTaskQueueRequest(
            namespace=client.namespace, task_queue=TaskQueue(name=name), task_queue_type=kind
        )
        try:
            described = await client.workflow_service.describe_task_queue(request, timeout=RPC_SECONDS)
        except RPCError as error:
            return _refused("temporal.task_queues", error)
        current = described.versioning_info.current_deployment_version
        states.append(
            TaskQueueState(
                name=name,
                kind="workflows" if kind == WORKFLOW else "activities",
                pollers=len({poller.identity for poller in described.pollers}),
                current=Version(current.deployment_name, current.build_id) if current.build_id else None,
            )
        )
    return states


def check_queues(states: Sequence[TaskQueueState]) -> Finding:
    """Whether a worker polls each task queue."""
    check = "temporal.task_queues"
    idle = [f"{queue.name} ({queue.kind})" for queue in states if not queue.pollers]
    if idle:
        return warning(
            check,
            f"no worker polls {', '.join(idle)}: workspaces do not change",
            "Start `onebox worker` with the same TEMPORAL_ADDRESS and TEMPORAL_NAMESPACE.",
            "TEMPORAL_NAMESPACE",
        )
    pollers = max(queue.pollers for queue in states)
    return ok(check, f"all {len(states)} are polled, by at most {pollers} workers each")


async def _schedules(client: Client) -> list[Finding]:
    states: list[ScheduleState] = []
    for schedule_id in (WATCHDOG_SCHEDULE, SWEEP_SCHEDULE, REPAIR_SCHEDULE):
        try:
            described = await client.get_schedule_handle(schedule_id).describe(rpc_timeout=RPC_SECONDS)
        except RPCError as error:
            if error.status is not RPCStatusCode.NOT_FOUND:
                return [_refused(f"temporal.schedule.{schedule_id}", error)]
            states.append(ScheduleState(schedule_id=schedule_id, paused=None))
        else:
            state = described.schedule.state
            states.append(ScheduleState(schedule_id=schedule_id, paused=state.paused, note=state.note or ""))
    return list(_check_schedules(states))


def _check_schedules(states: Sequence[ScheduleState]) -> Iterator[Finding]:
    for state in states:
        check = f"temporal.schedule.{state.schedule_id}"
        if state.paused is None:
            yield warning(check, "the schedule does not exist", "Start `onebox worker`, which creates it.")
        elif state.paused:
            note = f" ({state.note})" if state.note else ""
            yield warning(
                check,
                f"the schedule is paused{note}",
                f"To resume: `temporal schedule toggle --schedule-id {state.schedule_id} --unpause`.",
            )
        else:
            yield ok(check, "running")


def _refused(check: str, error: RPCError) -> Finding:
    return failed(
        check,
        f"the server returns {error.status.name}: {error.message[:300]}",
        "Grant our API key or certificate access to this namespace, or correct TEMPORAL_NAMESPACE.",
        "TEMPORAL_NAMESPACE",
        "TEMPORAL_API_KEY",
    )


def _type_name(kind: "IndexedValueType.ValueType") -> str:
    return IndexedValueType.Name(kind).removeprefix("INDEXED_VALUE_TYPE_").title()
