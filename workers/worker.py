"""`onebox worker`: runs workflows, activities and the relay until SIGTERM, then ends in order.

Starts and stops things; how they are put together is in `wiring`.
"""

import asyncio
import os
import signal
from collections.abc import Sequence
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
    """Run until a signal asks to end; a Temporal server that is not up yet is waited for."""
    settings = load(WorkerSettings)
    logs.configure(log_format=settings.log_format, level=settings.log_level)
    close_metrics, end_tracing = metrics.serve(settings.worker_metrics_bind), tracing.start("onebox-worker")
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
    async with serve_probes(health, settings.health_bind):
        client = await _connect(stopping, metrics.sdk_runtime(settings.sdk_metrics_bind))
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
                patience=settings.liveness_thresholds,
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
            held_up = asyncio.create_task(
                eviction_watch.wait_until_stuck(workers, tolerance=eviction_watch.EVICTION_TIMEOUT)
            )
            await asyncio.wait((stop, relay, held_up), return_when=asyncio.FIRST_COMPLETED)
            health.stopping()
            broken = relay.exception() if relay.done() else None
            if broken is not None:
                log.error("relay.ended", exc_info=broken)  # without it, nobody hears of boxes: start anew
            if held_up.done():
                log.error(
                    "worker.stuck", hint="a run cannot be evicted: another process has to go on with it"
                )
            log.info("worker.stopping", grace_seconds=settings.graceful_shutdown_seconds)
            if not await eviction_watch.shut_down(workers, within=settings.shutdown_limit):
                log.error("worker.killed", hint="it does not end by itself; others take up what it was doing")
                # Like a kill, which everything here survives; an exception would wait for it again.
                os._exit(1)
        others = (relay, stop, held_up, *background)
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
    log.info("worker.stopped")
    return 0 if stopping.is_set() and broken is None else 1


def _start_background_tasks(client: Client, resources: wiring.Resources) -> list[asyncio.Task[None]]:
    """What goes on background the work, and ends with it."""
    settings = resources.settings
    rounds = (
        schedules.watchdog(settings.watchdog_interval),
        schedules.sweep(settings.sweep_interval),
        schedules.repair(settings.repair_interval),
    )
    reader = FleetMetricsReader(
        pool=resources.pool,
        policy=settings.fleet_policy,
        expire=timedelta(seconds=settings.delegation_expire_seconds),
    )
    tasks = [
        asyncio.create_task(_ensure_schedules(client, rounds), name="schedules"),
        asyncio.create_task(reader.run(), name="fleet_metrics"),
    ]
    if (version := settings.deployment_version) is not None:
        tasks.append(asyncio.create_task(versioning.watch(client, version), name="version"))
    for task in tasks:
        task.add_done_callback(_log_if_failed)
    return tasks


def _log_if_failed(task: asyncio.Task[None]) -> None:
    """The work goes on without it, so nobody else would notice."""
    broken = None if task.cancelled() else task.exception()
    if broken is not None:
        log.error("worker.task_failed", task=task.get_name(), exc_info=broken)


async def _ensure_schedules(client: Client, periodic: Sequence[schedules.PeriodicWorkflow]) -> None:
    """A server that is away, or that another worker is just telling the same, is asked again."""
    while True:
        try:
            await schedules.ensure(client, periodic)
        except RPCError as error:
            log.warning("schedules.refused", error=error.message)
            await asyncio.sleep(RETRY_DELAY.total_seconds())
        else:
            return


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
