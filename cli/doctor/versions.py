"""Looking at the versions of workers that Temporal gives work to, and at the keys of what it holds.

Reads only; what it means is judged elsewhere.
"""

from collections import Counter
from datetime import timedelta

from temporalio.api.common.v1 import Payload
from temporalio.api.workflowservice.v1 import DescribeWorkerDeploymentRequest
from temporalio.client import Client
from temporalio.common import WorkerDeploymentVersion
from temporalio.service import RPCError, RPCStatusCode

from cli.doctor.checks import version as checks_version
from cli.doctor.checks.version import Version
from cli.doctor.model import Finding, skipped
from workers.temporal import versioning
from workflows.shared.encryption import ENCODING, KEY_ID, PayloadKeys

RPC_SECONDS = timedelta(seconds=10)

SAMPLE_SIZE = 200
"""Running workspaces: the newest, a page of the list."""

UNSUPPORTED = (
    RPCStatusCode.UNIMPLEMENTED,
    RPCStatusCode.PERMISSION_DENIED,
    RPCStatusCode.FAILED_PRECONDITION,
)


async def version(client: Client, mine: WorkerDeploymentVersion | None, *, routed: Version | None) -> Finding:
    """Whether a worker with this version would get work; `routed` is whose the queue's work is now."""
    if mine is None:
        return checks_version.unversioned(routed)
    me = Version(mine.deployment_name, mine.build_id)
    request = DescribeWorkerDeploymentRequest(namespace=client.namespace, deployment_name=me.deployment)
    try:
        answer = await client.workflow_service.describe_worker_deployment(request, timeout=RPC_SECONDS)
    except RPCError as error:
        if error.status in UNSUPPORTED:
            return checks_version.no_versions(me, error.message[:300])
        if error.status is not RPCStatusCode.NOT_FOUND:
            return skipped(checks_version.CHECK, f"the server says {error.status.name}")
        current = None  # it hears of a deployment with its workers' first polls
    else:
        build = answer.worker_deployment_info.routing_config.current_deployment_version.build_id
        current = Version(me.deployment, build) if build else None
    return checks_version.versioned(me, current, remedy=versioning.remedy(mine))


async def payload_keys(client: Client, keys: PayloadKeys) -> Finding:
    """Whether the memos of running workspaces can be decrypted: each has one."""
    seen: Counter[str] = Counter()
    sampled = 0
    query = "WorkflowType = 'WorkspaceWorkflow' AND ExecutionStatus = 'Running'"
    try:
        async for run in client.list_workflows(query, limit=SAMPLE_SIZE, rpc_timeout=RPC_SECONDS):
            sampled += 1
            seen.update({key for each in run.raw_info.memo.fields.values() if (key := _key_of(each))})
    except RPCError as error:
        return skipped(checks_version.KEYS_CHECK, f"the server says {error.status.name}")
    return checks_version.payload_keys(seen, keys.keys.keys(), sampled=sampled)


def _key_of(payload: Payload) -> str:
    if payload.metadata.get("encoding") != ENCODING:
        return ""
    return payload.metadata.get(KEY_ID, b"").decode(errors="replace")
