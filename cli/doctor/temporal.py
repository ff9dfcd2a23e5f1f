"""Looking at Temporal as the worker reaches it; what it means is judged elsewhere.

Reads only.
"""

import asyncio
from datetime import timedelta

from temporalio.api.enums.v1 import IndexedValueType, TaskQueueType
from temporalio.api.operatorservice.v1 import ListSearchAttributesRequest
from temporalio.api.taskqueue.v1 import TaskQueue
from temporalio.api.workflowservice.v1 import DescribeNamespaceRequest, DescribeTaskQueueRequest
from temporalio.client import Client
from temporalio.envconfig import ClientConfig
from temporalio.service import RPCError, RPCStatusCode

from cli.doctor import versions
from cli.doctor.checks import temporal
from cli.doctor.checks.temporal import ScheduleState, TaskQueueState
from cli.doctor.checks.version import Version
from cli.doctor.model import Finding, failed, ok, skipped
from workers import wiring
from workers.settings.common import InvalidSettings
from workers.settings.worker import WorkerSettings
from workflows.workspace.messages import (
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
"""The SDK tries again by itself for a while."""

WORKFLOW = TaskQueueType.TASK_QUEUE_TYPE_WORKFLOW
ACTIVITY = TaskQueueType.TASK_QUEUE_TYPE_ACTIVITY

QUEUES = (
    (TASK_QUEUE, WORKFLOW),
    (TASK_QUEUE, ACTIVITY),
    (EC2_TASK_QUEUE, ACTIVITY),
    (DELEGATIONS_TASK_QUEUE, WORKFLOW),
    (DELEGATIONS_TASK_QUEUE, ACTIVITY),
)


def api_key() -> str:
    """The API key of the profile; empty if there is none, or the profile can't be read."""
    try:
        return ClientConfig.load_client_connect_config().get("api_key", "")
    except (RuntimeError, OSError, ValueError):
        return ""


async def findings(worker: WorkerSettings) -> list[Finding]:
    """All about the server."""
    try:
        address = ClientConfig.load_client_connect_config().get("target_host", wiring.DEFAULT_TARGET)
    except (RuntimeError, OSError, ValueError) as error:
        remedy = "Correct the TEMPORAL_* variables, or the file that TEMPORAL_CONFIG_FILE names."
        return [failed("temporal.settings", str(error), remedy, "TEMPORAL_CONFIG_FILE")]
    try:
        client = await asyncio.wait_for(wiring.connect(), CONNECT_SECONDS)
    except InvalidSettings:
        return [skipped("temporal.connection", "PAYLOAD_KEYS cannot be used")]  # the settings' checks tell
    except TimeoutError:
        return [
            temporal.unreachable("no answer", address),
            skipped("temporal.namespace", "not reached"),
        ]
    except (RPCError, RuntimeError, OSError, ValueError) as error:
        told = " ".join(str(error).split())[:300]
        return [temporal.unreachable(told, address), skipped("temporal.namespace", "not reached")]
    return await _inspect(client, address, worker)


async def _inspect(client: Client, address: str, worker: WorkerSettings) -> list[Finding]:
    found = [ok("temporal.connection", f"{address}, as {client.identity}")]
    try:
        request = DescribeNamespaceRequest(namespace=client.namespace)
        described = await client.workflow_service.describe_namespace(request, timeout=RPC_SECONDS)
    except RPCError as error:
        if error.status is RPCStatusCode.NOT_FOUND:
            found.append(temporal.no_namespace(client.namespace, address))
        else:
            found.append(_refused("temporal.namespace", error))
        return [*found, skipped("temporal.search_attributes", "they are the namespace's")]
    retention = described.config.workflow_execution_retention_ttl.ToTimedelta()
    # A development stack keeps closed runs as long as it likes.
    development = worker.allow_loopback_targets
    found.append(temporal.namespace(client.namespace, retention, development=development))
    found.append(await _search_attributes(client))
    seen = await _queues(client)
    found.append(seen if isinstance(seen, Finding) else temporal.queues(seen))
    routed = None if isinstance(seen, Finding) else seen[0].current
    found.append(await versions.version(client, worker.deployment_version, routed=routed))
    found.append(await versions.payload_keys(client, worker.payload_key_ring))
    found += await _schedules(client)
    return found


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
    return temporal.search_attributes(wanted, known)


async def _search_attributes_by_query(client: Client, wanted: dict[str, str]) -> Finding:
    """By asking for workflows that have them: a query for one that isn't registered is refused."""
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
    return temporal.search_attributes(wanted, known)


async def _queues(client: Client) -> list[TaskQueueState] | Finding:
    seen: list[TaskQueueState] = []
    for name, kind in QUEUES:
        request = DescribeTaskQueueRequest(
            namespace=client.namespace, task_queue=TaskQueue(name=name), task_queue_type=kind
        )
        try:
            described = await client.workflow_service.describe_task_queue(request, timeout=RPC_SECONDS)
        except RPCError as error:
            return _refused("temporal.task_queues", error)
        workers = {poller.identity for poller in described.pollers}
        current = described.versioning_info.current_deployment_version
        seen.append(
            TaskQueueState(
                name=name,
                kind="workflows" if kind == WORKFLOW else "activities",
                pollers=len(workers),
                current=Version(current.deployment_name, current.build_id) if current.build_id else None,
            )
        )
    return seen


async def _schedules(client: Client) -> list[Finding]:
    seen: list[ScheduleState] = []
    for schedule_id in (WATCHDOG_SCHEDULE, SWEEP_SCHEDULE, REPAIR_SCHEDULE):
        try:
            described = await client.get_schedule_handle(schedule_id).describe(rpc_timeout=RPC_SECONDS)
        except RPCError as error:
            if error.status is not RPCStatusCode.NOT_FOUND:
                return [_refused(f"temporal.schedule.{schedule_id}", error)]
            seen.append(ScheduleState(schedule_id=schedule_id, paused=None))
        else:
            state = described.schedule.state
            seen.append(ScheduleState(schedule_id=schedule_id, paused=state.paused, note=state.note or ""))
    return list(temporal.schedules(seen))


def _refused(check: str, error: RPCError) -> Finding:
    return failed(
        check,
        f"the server says {error.status.name}: {error.message[:300]}",
        "Give our API key or certificate access to this namespace, or correct TEMPORAL_NAMESPACE.",
        "TEMPORAL_NAMESPACE",
        "TEMPORAL_API_KEY",
    )


def _type_name(kind: "IndexedValueType.ValueType") -> str:
    return IndexedValueType.Name(kind).removeprefix("INDEXED_VALUE_TYPE_").title()
