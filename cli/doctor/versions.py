"""Checks worker deployment versions, and the encryption keys of running workspaces."""

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import timedelta

from temporalio.api.common.v1 import Payload
from temporalio.api.workflowservice.v1 import DescribeWorkerDeploymentRequest
from temporalio.client import Client
from temporalio.common import WorkerDeploymentVersion
from temporalio.service import RPCError, RPCStatusCode
from typing_extensions import override

from cli.doctor.model import Finding, failed, ok, skipped, warning
from workers.temporal import versioning
from workflows.shared.encryption import ENCODING, KEY_ID, PayloadKeys

CHECK = "temporal.version"
KEYS_CHECK = "temporal.payload_keys"

VARIABLES = ("TEMPORAL_DEPLOYMENT_NAME", "TEMPORAL_WORKER_BUILD_ID")

RPC_SECONDS = timedelta(seconds=10)

SAMPLE_SIZE = 200
"""Running workspaces whose keys are checked: the newest, one page of the list."""

UNSUPPORTED = (
    RPCStatusCode.UNIMPLEMENTED,
    RPCStatusCode.PERMISSION_DENIED,
    RPCStatusCode.FAILED_PRECONDITION,
)


@dataclass(frozen=True, slots=True)
class Version:
    """A build of a worker deployment."""

    deployment: str
    build: str

    @override
    def __str__(self) -> str:
        return f"build {self.build} of {self.deployment}"


async def findings(
    client: Client, configured: WorkerDeploymentVersion | None, *, routed: Version | None
) -> Finding:
    """Whether a worker of the configured version gets work; `routed` is the version that gets it now."""
    if configured is None:
        return check_unversioned(routed)
    version = Version(configured.deployment_name, configured.build_id)
    request = DescribeWorkerDeploymentRequest(namespace=client.namespace, deployment_name=version.deployment)
    try:
        described = await client.workflow_service.describe_worker_deployment(request, timeout=RPC_SECONDS)
    except RPCError as error:
        if error.status in UNSUPPORTED:
            return check_unsupported(version, error.message[:300])
        if error.status is not RPCStatusCode.NOT_FOUND:
            return skipped(CHECK, f"the server returns {error.status.name}")
        current = None  # the server creates the deployment when its workers first poll
    else:
        build = described.worker_deployment_info.routing_config.current_deployment_version.build_id
        current = Version(version.deployment, build) if build else None
    return check_version(version, current, remedy=versioning.remedy(configured))


def check_unversioned(current: Version | None) -> Finding:
    """The finding for a worker without a version."""
    if current is None:
        return ok(CHECK, "workers are not versioned")
    return warning(
        CHECK,
        f"{current} is current; a worker without a version, as configured here, gets no work",
        "Set TEMPORAL_DEPLOYMENT_NAME and TEMPORAL_WORKER_BUILD_ID. To return to unversioned workers: "
        "`temporal worker deployment set-current-version "
        f"--deployment-name {current.deployment} --unversioned --yes`.",
        *VARIABLES,
    )


def check_version(version: Version, current: Version | None, *, remedy: str) -> Finding:
    """The finding for a versioned worker; the command `remedy` makes its version current."""
    if current == version:
        return ok(CHECK, f"{version} is current")
    if current is None:
        return failed(
            CHECK,
            f"no build of {version.deployment} is current: workflows wait, without an error, unless "
            "unversioned workers run",
            f"Once workers of the build are ready: `{remedy}`.",
            *VARIABLES,
        )
    return warning(
        CHECK,
        f"{current} is current: {version} gets no work",
        f"During an upgrade, once workers of the build are ready: `{remedy}`.",
        *VARIABLES,
    )


def check_unsupported(version: Version, message: str) -> Finding:
    """The finding for a server that does not support worker deployments or has them disabled."""
    return failed(
        CHECK,
        f"the server cannot dispatch work to {version}: {message}",
        "Use Temporal server 1.28 or newer, with worker deployments enabled in the namespace, "
        "or unset both variables.",
        *VARIABLES,
    )


async def payload_keys(client: Client, keys: PayloadKeys) -> Finding:
    """Whether the memos of running workspaces can be decrypted; each workspace has a memo."""
    counts: Counter[str] = Counter()
    sampled = 0
    query = "WorkflowType = 'WorkspaceWorkflow' AND ExecutionStatus = 'Running'"
    try:
        async for run in client.list_workflows(query, limit=SAMPLE_SIZE, rpc_timeout=RPC_SECONDS):
            sampled += 1
            counts.update({key for each in run.raw_info.memo.fields.values() if (key := _key_of(each))})
    except RPCError as error:
        return skipped(KEYS_CHECK, f"the server returns {error.status.name}")
    return check_payload_keys(counts, keys.keys.keys(), sampled=sampled)


def check_payload_keys(counts: Mapping[str, int], known: Collection[str], *, sampled: int) -> Finding:
    """The finding for the number of workspaces encrypted with each key."""
    missing = {key: count for key, count in counts.items() if key not in known}
    if missing:
        listed = " and ".join(f"{count} with key {key!r}" for key, count in sorted(missing.items()))
        names = ", ".join(map(repr, sorted(missing)))
        return failed(
            KEYS_CHECK,
            f"PAYLOAD_KEYS cannot decrypt the payloads of some of {sampled} running workspaces "
            f"({listed}): their workflow tasks fail",
            f"Add {names} to PAYLOAD_KEYS, after the first. See docs/encryption.md on removing keys.",
            "PAYLOAD_KEYS",
        )
    encrypted = sum(counts.values())
    return ok(KEYS_CHECK, f"{encrypted} of {sampled} running workspaces are encrypted, all with known keys")


def _key_of(payload: Payload) -> str:
    if payload.metadata.get("encoding") != ENCODING:
        return ""
    return payload.metadata.get(KEY_ID, b"").decode(errors="replace")
