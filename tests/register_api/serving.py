"""The register API as a separate process on a socket, which can be killed and restarted.

Forked from a server with all imports, so that a start takes milliseconds.
"""

import asyncio
import logging
import multiprocessing
import os
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from unittest import mock

import httpx2
import structlog
import uvicorn

from devstack.processes import LOCALHOST, free_port
from register_api.app import create_app
from register_api.auth.identity import CallerIdentity, RecordedWorkspace
from register_api.auth.rules import Accepted, Bearer, Grant, LiveTokens, Refused, decide_register
from register_api.http import connection_limits, limits
from register_api.http.client_address import Network
from register_api.http.config import ApiConfig, BootstrapPolicy
from register_api.http.connection_limits import LimitedHttpProtocol
from register_api.http.limits import Limits
from register_api.registration import register
from store.db.pool import open_pool
from tests.register_api.platform import CONFIG, PATIENCE

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["tests.register_api.serving"])

START_SECONDS = 90.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Waits:
    """Timeouts of the process, towards callers and towards the database."""

    head_seconds: float = connection_limits.HEAD_TIMEOUT_SECONDS
    body_seconds: float = 10.0
    discarded_seconds: float = limits.DISCARDED_SECONDS
    lock: timedelta = timedelta(seconds=1)
    checkout: timedelta = timedelta(seconds=2)
    statement: timedelta = timedelta(seconds=5)


PATIENT = Waits(lock=PATIENCE, checkout=PATIENCE, statement=2 * PATIENCE)
"""For callers that do not retry: a slow machine must not cause a refusal."""


class ApiProcess:
    """One process; `kill` and `start` may alternate, at the same URL."""

    def __init__(
        self,
        database: str,
        *,
        policy: BootstrapPolicy = BootstrapPolicy.SECRET,
        trusted_proxies: tuple[Network, ...] = (),
        incident_rule: bool = False,
        pool_size: int = 8,
        pool_minimum: int = 1,
        waits: Waits = Waits(),
    ) -> None:
        """`incident_rule` installs the incident's rule: mint for any caller while no token is live."""
        self.port = free_port()
        self._setting = _Setting(
            database, self.port, policy, trusted_proxies, incident_rule, pool_size, pool_minimum, waits
        )
        self._process: BaseProcess | None = None

    @property
    def url(self) -> str:
        return f"http://{LOCALHOST}:{self.port}"

    @property
    def pid(self) -> int:
        assert self._process is not None
        assert self._process.pid is not None
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.is_alive()

    def start(self) -> None:
        """Start it, and wait until it accepts connections."""
        reader, writer = _CONTEXT.Pipe(duplex=False)
        self._process = _CONTEXT.Process(target=_serve, args=(self._setting, writer), daemon=True)
        self._process.start()
        writer.close()
        assert reader.poll(START_SECONDS), "the register API did not start"
        reader.recv()
        reader.close()

    def kill(self) -> None:
        """Send SIGKILL, and wait for the end."""
        if self._process is not None:
            self._process.kill()
            self._process.join()
            self._process.close()
            self._process = None

    def wait_for_its_end(self) -> None:
        """Wait for the end of a process that something else killed."""
        assert self._process is not None
        self._process.join(START_SECONDS)
        assert self._process.exitcode == -signal.SIGKILL
        self._process.close()
        self._process = None


@contextmanager
def api_process(
    database: str,
    *,
    policy: BootstrapPolicy = BootstrapPolicy.SECRET,
    trusted_proxies: tuple[Network, ...] = (),
    incident_rule: bool = False,
    pool_size: int = 8,
    pool_minimum: int = 1,
    waits: Waits = Waits(),
) -> Iterator[ApiProcess]:
    """A running process for the block."""
    process = ApiProcess(
        database,
        policy=policy,
        trusted_proxies=trusted_proxies,
        incident_rule=incident_rule,
        pool_size=pool_size,
        pool_minimum=pool_minimum,
        waits=waits,
    )
    try:
        process.start()
        yield process
    finally:
        process.kill()


def client(process: ApiProcess, *, seconds: float = 10.0) -> httpx2.AsyncClient:
    """A client of the process; its connections end with the caller's block."""
    return httpx2.AsyncClient(base_url=process.url, timeout=seconds, trust_env=False)


@dataclass(frozen=True, slots=True)
class _Setting:
    """The process's configuration."""

    database: str
    port: int
    policy: BootstrapPolicy
    trusted_proxies: tuple[Network, ...]
    incident_rule: bool
    pool_size: int
    pool_minimum: int
    waits: Waits


def _serve(setting: _Setting, ready: "Connection[str, str]") -> None:
    os.setpgid(0, 0)  # a Ctrl-C in the terminal must reach only the tests
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    waits = setting.waits
    mock.patch.object(connection_limits, "HEAD_TIMEOUT_SECONDS", waits.head_seconds).start()
    mock.patch.object(limits, "DISCARDED_SECONDS", waits.discarded_seconds).start()
    if setting.incident_rule:
        mock.patch.object(register, "decide_register", _mint_for_any_caller).start()
    config = replace(
        CONFIG,
        bootstrap_policy=setting.policy,
        trusted_proxies=setting.trusted_proxies,
        limits=Limits(body_seconds=waits.body_seconds),
    )
    asyncio.run(_run(setting, config, ready))


async def _run(setting: _Setting, config: ApiConfig, ready: "Connection[str, str]") -> None:
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((LOCALHOST, setting.port))
    listener.listen(2048)
    async with open_pool(
        setting.database,
        minimum=setting.pool_minimum,
        maximum=setting.pool_size,
        statement_timeout=setting.waits.statement,
        lock_timeout=setting.waits.lock,
        checkout_timeout=setting.waits.checkout,
        application_name="onebox-api",
    ) as pool:
        app = create_app(config, pool)
        server = uvicorn.Server(
            uvicorn.Config(
                app,
                http=LimitedHttpProtocol,
                log_config=None,
                access_log=False,
                lifespan="off",
                proxy_headers=False,
            )
        )
        ready.send("listening")
        ready.close()
        await server.serve(sockets=[listener])


def _mint_for_any_caller(
    workspace: RecordedWorkspace | None, identity: CallerIdentity, *, bearer: Bearer, live: LiveTokens
) -> Accepted | Refused:
    """The incident's rule with its two flaws: no caller needs evidence, and a 401 is final."""
    if workspace is not None and workspace.current is not None:
        if bearer in (Bearer.PENDING, Bearer.ACTIVE, Bearer.RETIRING):
            return Accepted()
        if not live.any:
            return Accepted(grant=Grant.MINT)
    return decide_register(workspace, CallerIdentity.UNPROVEN, bearer=bearer, live=live)
