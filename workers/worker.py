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

from workers import checks, metrics, schedules, stuck, telemetry, tracing, versioning, wiring
from workers.figures import FigureReader
from workers.health import Health, served
from workers.relay import Relay
from workers.settings import load
from workers.worker_settings import WorkerSettings

CONNECT_AGAIN_AFTER = timedelta(seconds=1)

log: structlog.stdlib.BoundLogger = structlog.get_logger("worker")


async def run() -> int:
    """Run until a signal asks to end; a Temporal server that is not up yet is waited for."""
    settings = load(WorkerSettings)
    telemetry.configure(log_format=settings.log_format, level=settings.log_level)
    close_metrics, end_tracing = metrics.serve(settings.worker_metrics_bind), tracing.start("onebox-worker")
    try:
        return await _until_told(settings)
    finally:
        close_metrics()
        end_tracing()


async def _until_told(settings: WorkerSettings) -> int:
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    health = Health()
    async with served(health, settings.health_bind):
        client = await _connected(stopping, metrics.sdk_runtime(settings.sdk_metrics_bind))
        if client is None:
            return 0
        return await _work(settings, client, health, stopping)


async def _work(settings: WorkerSettings, client: Client, health: Health, stopping: asyncio.Event) -> int:
    health.depends_on("temporal", lambda: checks.temporal(client))
    async with wiring.opened(settings) as parts:
        health.depends_on("database", lambda: checks.database(parts.pool))
        relay = asyncio.create_task(
            Relay(
                pool=parts.pool,
                client=client,
                database_url=settings.database_url.get_secret_value(),
                heartbeat_stale=settings.heartbeat_stale,
                patience=settings.processing_patience,
            ).run()
        )
        async with (
            wiring.workspace_worker(client, parts) as workspaces,
            wiring.ec2_worker(client, parts) as ec2,
            wiring.delegations_worker(client, parts) as delegations,
        ):
            beside = _beside(client, parts)
            health.started()
            log.info("worker.started", owner=settings.onebox_owner, namespace=client.namespace)
            workers = (workspaces, ec2, delegations)
            stop = asyncio.create_task(stopping.wait())
            held_up = asyncio.create_task(stuck.until_stuck(workers, patience=stuck.LET_GO_WITHIN))
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
            if not await stuck.end(workers, within=settings.shutdown_limit):
                log.error("worker.killed", hint="it does not end by itself; others take up what it was doing")
                # Like a kill, which everything here survives; an exception would wait for it again.
                os._exit(1)
        others = (relay, stop, held_up, *beside)
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
    log.info("worker.stopped")
    return 0 if stopping.is_set() and broken is None else 1


def _beside(client: Client, parts: wiring.Parts) -> list[asyncio.Task[None]]:
    """What goes on beside the work, and ends with it."""
    settings = parts.settings
    rounds = (
        schedules.watchdog(settings.watchdog_every),
        schedules.sweep(settings.sweep_every),
        schedules.rescue(settings.rescue_every),
    )
    reader = FigureReader(
        pool=parts.pool,
        policy=settings.fleet_policy,
        expire=timedelta(seconds=settings.delegation_expire_seconds),
    )
    tasks = [
        asyncio.create_task(_scheduled(client, rounds), name="schedules"),
        asyncio.create_task(reader.run(), name="figures"),
    ]
    if (version := settings.deployment_version) is not None:
        tasks.append(asyncio.create_task(versioning.watch(client, version), name="version"))
    for task in tasks:
        task.add_done_callback(_say_if_it_broke)
    return tasks


def _say_if_it_broke(task: asyncio.Task[None]) -> None:
    """The work goes on without it, so nobody else would notice."""
    broken = None if task.cancelled() else task.exception()
    if broken is not None:
        log.error("worker.part_ended", part=task.get_name(), exc_info=broken)


async def _scheduled(client: Client, rounds: Sequence[schedules.Round]) -> None:
    """A server that is away, or that another worker is just telling the same, is asked again."""
    while True:
        try:
            await schedules.ensure(client, rounds)
        except RPCError as error:
            log.warning("schedules.refused", error=error.message)
            await asyncio.sleep(CONNECT_AGAIN_AFTER.total_seconds())
        else:
            return


async def _connected(stopping: asyncio.Event, runtime: Runtime | None) -> Client | None:
    while not stopping.is_set():
        try:
            return await wiring.connect(runtime)
        except (RPCError, RuntimeError, OSError) as error:
            log.warning("temporal.unreachable", error=str(error)[:200])
        try:
            await asyncio.wait_for(stopping.wait(), CONNECT_AGAIN_AFTER.total_seconds())
        except TimeoutError:
            continue
    return None
