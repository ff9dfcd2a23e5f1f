"""Worker deployment versions: which build this worker is, and whether Temporal gives it work.

Makes no version current: that is an operator's step, after the build was seen to be healthy.
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
"""A build that is made current, or replaced, says so in its log within seconds; it costs one call."""

log: structlog.stdlib.BoundLogger = structlog.get_logger("versioning")


def config(version: WorkerDeploymentVersion) -> WorkerDeploymentConfig:
    """Runs move to the current version with their next task: they live for months, builds don't."""
    return WorkerDeploymentConfig(
        version=version,
        use_worker_versioning=True,
        default_versioning_behavior=VersioningBehavior.AUTO_UPGRADE,
    )


def remedy(version: WorkerDeploymentVersion) -> str:
    """What makes a build the one that gets work."""
    return (
        "temporal worker deployment set-current-version "
        f"--deployment-name {version.deployment_name} --build-id {version.build_id} --yes"
    )


async def current_build(client: Client, deployment: str) -> str | None:
    """The build that new work goes to; None if there is none yet: then workflows wait, silently."""
    request = DescribeWorkerDeploymentRequest(namespace=client.namespace, deployment_name=deployment)
    try:
        answer = await client.workflow_service.describe_worker_deployment(request)
    except RPCError as error:
        if error.status is RPCStatusCode.NOT_FOUND:
            return None  # the server hears of a deployment with its workers' first polls
        raise
    routing = answer.worker_deployment_info.routing_config
    return routing.current_deployment_version.build_id or None


async def watch(client: Client, version: WorkerDeploymentVersion) -> None:
    """Say in the log whether this build gets work, each time that it changes; until cancelled."""
    said: tuple[str | None] | None = None
    while True:
        try:
            current = await current_build(client, version.deployment_name)
        except RPCError as error:
            log.warning("version.unknown", error=error.message)
        else:
            if said != (current,):
                said = (current,)
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
