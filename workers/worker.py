"""`onebox worker`: runs workflows, activities and the relay until SIGTERM, then shuts down in order.

`wiring` builds the parts; this module starts and stops them.
"""

import asyncio
import os
import signal
from datetime import timedelta

import structlog
from temporalio.client import Client
from temporalio.runtime import Runtime
from temporalio.service import RPCError

from workers import wiring
from workers.relay import Relay
from workers.serving import dependency_checks
from workers.serving.health import Health, serve_probes
from workers.settings.common import load
from workers.settings.worker import WorkerSettings
from workers.telemetry import logs, metrics, tracing
from workers.telemetry.fleet_metrics import FleetMetricsReader
from workers.temporal import eviction_watch, schedules, versioning

RETRY_DELAY = timedelta(seconds=1)

log: structlog.stdlib.BoundLogger = structlog.get_logger("worker")


async def run() -> int:
    """Run until SIGTERM or SIGINT and return the exit code.

    Waits for a Temporal server that is not up yet. Raises `CannotListen`.
    """
    settings = load(WorkerSettings)
    logs.configure(log_format=settings.log_format, level=settings.log_level)
    close_metrics, end_tracing = (
        metrics.serve("WORKER_METRICS_BIND", settings.worker_metrics_bind),
        tracing.start("onebox-worker"),
    )
    try:
        return await _run_until_stopped(settings)
    finally:
        close_metrics()
        end_tracing()


async def _run_until_stopped(settings: WorkerSettings) -> int:
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    health = Health()
    async with serve_probes(health, "WORKER_HEALTH_BIND", settings.worker_health_bind):
        client = await _connect(stopping, metrics.sdk_runtime("SDK_METRICS_BIND", settings.sdk_metrics_bind))
        if client is None:
            return 0
        return await _run_workers(settings, client, health, stopping)


async def _run_workers(
    settings: WorkerSettings, client: Client, health: Health, stopping: asyncio.Event
) -> int:
    health.depends_on("temporal", lambda: dependency_checks.temporal(client))
    async with wiring.open_resources(settings) as resources:
        health.depends_on("database", lambda: dependency_checks.database(resources.pool))
        relay = asyncio.create_task(
            Relay(
                pool=resources.pool,
                client=client,
                database_url=settings.database_url.get_secret_value(),
                heartbeat_stale=settings.heartbeat_stale,
                thresholds=settings.liveness_thresholds,
            ).run()
        )
        async with (
            wiring.workspace_worker(client, resources) as workspaces,
            wiring.ec2_worker(client, resources) as ec2,
            wiring.delegations_worker(client, resources) as delegations,
        ):
            background = _start_background_tasks(client, resources)
            health.started()
            log.info("worker.started", owner=settings.control_plane_id, namespace=client.namespace)
            workers = (workspaces, ec2, delegations)
            stop = asyncio.create_task(stopping.wait())
            stuck = asyncio.create_task(
                eviction_watch.wait_until_stuck(workers, tolerance=eviction_watch.EVICTION_TIMEOUT)
            )
            await asyncio.wait((stop, relay, stuck), return_when=asyncio.FIRST_COMPLETED)
            health.stopping()
            broken = relay.exception() if relay.done() else None
            if broken is not None:
                # Without the relay no box event reaches a workflow: exit, and let the orchestrator restart.
                log.error("relay.ended", exc_info=broken)
            if stuck.done():
                log.error("worker.stuck", hint="a run cannot be evicted; the process exits and is restarted")
            log.info("worker.stopping", grace_seconds=settings.graceful_shutdown_seconds)
            if not await eviction_watch.shut_down(workers, within=settings.shutdown_limit):
                log.error("worker.killed", hint="shutdown timed out; other workers retry the open tasks")
                # An exception would wait for the workers' shutdown again, in the exit of the block above.
                os._exit(1)
        others = (relay, stop, stuck, *background)
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
    log.info("worker.stopped")
    return 0 if stopping.is_set() and broken is None else 1


def _start_background_tasks(client: Client, resources: wiring.Resources) -> list[asyncio.Task[None]]:
    """Start the tasks that run alongside the workers; the caller cancels them."""
    settings = resources.settings
    keeper = schedules.ScheduleKeeper(
        client=client,
        periodic=(
            schedules.watchdog(settings.watchdog_interval),
            schedules.sweep(settings.sweep_interval),
            schedules.repair(settings.repair_interval),
        ),
        interval=settings.schedule_check_interval,
    )
    reader = FleetMetricsReader(
        pool=resources.pool,
        policy=settings.fleet_policy,
        expire=timedelta(seconds=settings.delegation_expire_seconds),
    )
    tasks = [
        asyncio.create_task(keeper.run(), name="schedules"),
        asyncio.create_task(reader.run(), name="fleet_metrics"),
    ]
    if (version := settings.deployment_version) is not None:
        tasks.append(asyncio.create_task(versioning.watch(client, version), name="version"))
    for task in tasks:
        task.add_done_callback(_log_if_failed)
    return tasks


def _log_if_failed(task: asyncio.Task[None]) -> None:
    """Log a background task's exception; the worker runs on without the task."""
    broken = None if task.cancelled() else task.exception()
    if broken is not None:
        log.error("worker.task_failed", task=task.get_name(), exc_info=broken)


async def _connect(stopping: asyncio.Event, runtime: Runtime | None) -> Client | None:
    while not stopping.is_set():
        try:
            return await wiring.connect(runtime)
        except (RPCError, RuntimeError, OSError) as error:
            log.warning("temporal.unreachable", error=str(error)[:200])
        try:
            await asyncio.wait_for(stopping.wait(), RETRY_DELAY.total_seconds())
        except TimeoutError:
            continue
    return None
