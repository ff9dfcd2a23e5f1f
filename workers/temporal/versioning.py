"""Worker deployment versions: the build of this worker, and whether Temporal dispatches work to it.

An operator makes a version current, after checking that the build is healthy.
"""

import asyncio
from datetime import timedelta

import structlog
from temporalio.api.workflowservice.v1 import DescribeWorkerDeploymentRequest
from temporalio.client import Client
from temporalio.common import VersioningBehavior, WorkerDeploymentVersion
from temporalio.service import RPCError, RPCStatusCode
from temporalio.worker import WorkerDeploymentConfig

CHECK_INTERVAL = timedelta(seconds=10)
"""How soon a worker logs that its build became current or was replaced. A check is one RPC."""

log: structlog.stdlib.BoundLogger = structlog.get_logger("versioning")


def config(version: WorkerDeploymentVersion) -> WorkerDeploymentConfig:
    """The worker's deployment config. Runs auto-upgrade, because they outlive builds by months."""
    return WorkerDeploymentConfig(
        version=version,
        use_worker_versioning=True,
        default_versioning_behavior=VersioningBehavior.AUTO_UPGRADE,
    )


def remedy(version: WorkerDeploymentVersion) -> str:
    """The command that makes a build current."""
    return (
        "temporal worker deployment set-current-version "
        f"--deployment-name {version.deployment_name} --build-id {version.build_id} --yes"
    )


async def current_build(client: Client, deployment: str) -> str | None:
    """The current build of a deployment; None if there is none: workflows then wait without an error."""
    request = DescribeWorkerDeploymentRequest(namespace=client.namespace, deployment_name=deployment)
    try:
        answer = await client.workflow_service.describe_worker_deployment(request)
    except RPCError as error:
        if error.status is RPCStatusCode.NOT_FOUND:
            return None  # the server creates the deployment when its workers first poll
        raise
    routing = answer.worker_deployment_info.routing_config
    return routing.current_deployment_version.build_id or None


async def watch(client: Client, version: WorkerDeploymentVersion) -> None:
    """Log whether this build is current, at the start and on each change, until cancelled."""
    logged: tuple[str | None] | None = None
    while True:
        try:
            current = await current_build(client, version.deployment_name)
        except RPCError as error:
            log.warning("version.unknown", error=error.message)
        else:
            if logged != (current,):
                logged = (current,)
                _log(version, current)
        await asyncio.sleep(CHECK_INTERVAL.total_seconds())


def _log(version: WorkerDeploymentVersion, current: str | None) -> None:
    names = {"deployment": version.deployment_name, "build": version.build_id}
    if current == version.build_id:
        log.info("version.current", **names)
    elif current is None:
        log.error("version.none_current", **names, effect="workflows wait", remedy=remedy(version))
    else:
        log.warning("version.not_current", **names, current=current, remedy=remedy(version))
