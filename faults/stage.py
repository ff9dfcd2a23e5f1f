"""The stack of a run: proxied connections, PostgreSQL on a small disk, boxes with host faults."""

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from devstack.processes import LOCALHOST, free_port
from devstack.stack import Stack
from faults import full_disk
from faults.proxies import Place, Proxies

SETTINGS = {
    "HEARTBEAT_SECONDS": "0.5",
    "HEARTBEAT_STALE_SECONDS": "6",
    "ONEBOX_WATCH_SECONDS": "1",
    "REGISTER_DEADLINE_SECONDS": "60",
    "STALE_RECREATE_SECONDS": "30",
    "WATCHDOG_INTERVAL_SECONDS": "5",
    "ORPHAN_SWEEP_INTERVAL_SECONDS": "10",
    "ORPHAN_MIN_AGE_SECONDS": "40",
    "REPAIR_INTERVAL_SECONDS": "10",
    "RECREATE_GRACE_SECONDS": "5",
    "CANARY_DEADLINE_SECONDS": "45",
    "DELEGATION_ACK_SECONDS": "15",
    "DELEGATION_PROGRESS_SECONDS": "40",
    "NOT_PROCESSING_SECONDS": "30",
    "UNAVAILABLE_OFFERING_TTL_SECONDS": "5",
    "FLEET_FREEZE_PERCENT": "60",
    "FLEET_MAX_CONCURRENT_PERCENT": "50",
}
"""Shorter waits than in production, so that a round takes a minute. The decisions are the same."""

STALE_SECONDS = float(SETTINGS["HEARTBEAT_STALE_SECONDS"])


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """A running stack and its fault controls."""

    stack: Stack
    proxies: Proxies
    host_faults_dir: Path
    """Directory of the hosts' fault files."""
    ledgers: Path
    """Directory in which runtimes record processed messages."""
    disk: Path | None
    """PostgreSQL's own disk; None where the kernel forbids one."""
    listen_port: int
    """Where runtimes listen; they advertise the proxy's port."""


@contextmanager
def staged() -> Iterator[Stage]:
    """Run a stack for the block; all of it is removed at the end."""
    with tempfile.TemporaryDirectory(prefix="onebox-faults-", ignore_cleanup_errors=True) as name:
        directory = Path(name)
        disk = directory / "postgres"
        has_disk = full_disk.small_disk(disk)
        try:
            with _wired(directory, disk=disk if has_disk else None) as stage:
                yield stage
        finally:
            if has_disk:
                full_disk.leave(disk)


@contextmanager
def _wired(directory: Path, *, disk: Path | None) -> Iterator[Stage]:
    host_faults_dir, ledgers = directory / "host_faults_dir", directory / "ledgers"
    for each in (host_faults_dir, ledgers):
        each.mkdir()
    listen_port = free_port()
    with Proxies() as proxies:
        api = proxies.open("box-api", lambda _: _place(stack.register_api_url))
        settings = SETTINGS | {
            "REGISTER_API_URL": f"http://{LOCALHOST}:{api}",
            "ONEBOX_LEDGERS": str(ledgers),
            "ONEBOX_AILMENTS": str(host_faults_dir),
            "ONEBOX_LISTEN_PORT": str(listen_port),
        }
        stack = Stack(
            directory,
            free_ports=True,
            fsync=False,
            settings=settings,
            override=lambda part, environment: _detours(proxies, part, environment, listen_port),
            pending_seconds=0.3,
            terminating_seconds=0.3,
            report=lambda _: None,
        )
        with stack:
            yield Stage(
                stack=stack,
                proxies=proxies,
                host_faults_dir=host_faults_dir,
                ledgers=ledgers,
                disk=disk,
                listen_port=listen_port,
            )


def _detours(proxies: Proxies, part: str, environment: Mapping[str, str], listen_port: int) -> dict[str, str]:
    """Return the proxied addresses for a part."""
    database = environment["DATABASE_URL"]
    match part:
        case "worker":
            temporal, aws = environment["TEMPORAL_ADDRESS"], environment["AWS_ENDPOINT_URL"]
            # One proxy listens at the addresses of all boxes.
            proxies.open(
                "worker-box",
                lambda door: (door[0], listen_port),
                host="0.0.0.0",  # noqa: S104 - the boxes' own addresses are not known yet
                port=int(environment["BOX_RUNTIME_PORT"]),
            )
            return {
                "DATABASE_URL": _through(proxies, "worker-postgres", database),
                "AWS_ENDPOINT_URL": _through(proxies, "worker-aws", aws),
                "TEMPORAL_ADDRESS": urlsplit(
                    _through(proxies, "worker-temporal", f"http://{temporal}")
                ).netloc,
            }
        case "api":
            return {"DATABASE_URL": _through(proxies, "api-postgres", database)}
        case _:
            return {}


def _through(proxies: Proxies, wire: str, url: str) -> str:
    """Return the same URL through a proxy."""
    beyond = _place(url)
    port = proxies.open(wire, lambda _: beyond)
    parts = urlsplit(url)
    credentials, at, _ = parts.netloc.rpartition("@")
    return urlunsplit(parts._replace(netloc=f"{credentials}{at}{LOCALHOST}:{port}"))


def _place(url: str) -> Place:
    parts = urlsplit(url)
    assert parts.hostname is not None and parts.port is not None  # noqa: S101, PT018
    return parts.hostname, parts.port
