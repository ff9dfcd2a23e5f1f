"""The register API as a process of its own, on a socket: to be killed in mid-call, and started again at once.

Forked from a server that has imported everything, so that a start takes milliseconds.
"""

import asyncio
import logging
import multiprocessing
import os
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from unittest import mock

import httpx
import structlog
import uvicorn

from devstack.processes import free_port
from register_api import connections, registering
from register_api.app import create_app
from register_api.config import ApiConfig
from register_api.connections import BoundedHttp
from register_api.decision import Accepted, Bearer, Grant, LiveTokens, Refused, decide_register
from register_api.limits import Limits
from register_api.verdict import Policy, Standing, Verdict
from store.pool import open_pool
from tests.register_api.platform import CONFIG

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["tests.register_api.serving"])

START_SECONDS = 90.0


class ApiProcess:
    """One process; `kill` and `start` may follow each other for ever, at the same URL."""

    def __init__(
        self,
        database: str,
        *,
        policy: Policy = Policy.SECRET,
        naive: bool = False,
        pool_size: int = 8,
        head_seconds: float = connections.HEAD_SECONDS,
        body_seconds: float = 10.0,
    ) -> None:
        """`naive` replaces the rule by the one of the incident: mint to whoever comes while none is live."""
        self.port = free_port()
        self._arguments = (database, self.port, policy, naive, pool_size, head_seconds, body_seconds)
        self._process: BaseProcess | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        assert self._process is not None
        assert self._process.pid is not None
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.is_alive()

    def start(self) -> None:
        """Start it, and wait until it takes connections."""
        reader, writer = _CONTEXT.Pipe(duplex=False)
        self._process = _CONTEXT.Process(target=_serve, args=(*self._arguments, writer), daemon=True)
        self._process.start()
        writer.close()
        assert reader.poll(START_SECONDS), "the register API did not start"
        reader.recv()
        reader.close()

    def kill(self) -> None:
        """SIGKILL, and wait for its end."""
        if self._process is not None:
            self._process.kill()
            self._process.join()
            self._process.close()
            self._process = None

    def wait_for_its_end(self) -> None:
        """Somebody killed it."""
        assert self._process is not None
        self._process.join(START_SECONDS)
        assert self._process.exitcode == -signal.SIGKILL
        self._process.close()
        self._process = None


@contextmanager
def api_process(
    database: str,
    *,
    policy: Policy = Policy.SECRET,
    naive: bool = False,
    pool_size: int = 8,
    head_seconds: float = connections.HEAD_SECONDS,
    body_seconds: float = 10.0,
) -> Iterator[ApiProcess]:
    """A running process for the block."""
    process = ApiProcess(
        database,
        policy=policy,
        naive=naive,
        pool_size=pool_size,
        head_seconds=head_seconds,
        body_seconds=body_seconds,
    )
    process.start()
    try:
        yield process
    finally:
        process.kill()


def client(process: ApiProcess, *, seconds: float = 10.0) -> httpx.AsyncClient:
    """A client of the process, whose connections end with the caller's block."""
    return httpx.AsyncClient(base_url=process.url, timeout=seconds, trust_env=False)


def _serve(
    database: str,
    port: int,
    policy: Policy,
    naive: bool,
    pool_size: int,
    head_seconds: float,
    body_seconds: float,
    ready: "Connection[str, str]",
) -> None:
    os.setpgid(0, 0)  # a Ctrl-C in the terminal is for the tests
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    mock.patch.object(connections, "HEAD_SECONDS", head_seconds).start()
    if naive:
        mock.patch.object(registering, "decide_register", _mint_to_whoever_comes).start()
    config = replace(CONFIG, bootstrap_policy=policy, limits=Limits(body_seconds=body_seconds))
    asyncio.run(_run(database, port, config, pool_size, ready))


async def _run(
    database: str,
    port: int,
    config: ApiConfig,
    pool_size: int,
    ready: "Connection[str, str]",
) -> None:
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", port))
    listener.listen(2048)
    async with open_pool(
        database,
        maximum=pool_size,
        lock_timeout=timedelta(seconds=1),
        checkout_timeout=timedelta(seconds=2),
        application_name="onebox-api",
    ) as pool:
        app = create_app(config, pool)
        server = uvicorn.Server(
            uvicorn.Config(
                app, http=BoundedHttp, log_config=None, access_log=False, lifespan="off", proxy_headers=False
            )
        )
        ready.send("listening")
        ready.close()
        await server.serve(sockets=[listener])


def _mint_to_whoever_comes(
    standing: Standing | None, verdict: Verdict, *, bearer: Bearer, live: LiveTokens
) -> Accepted | Refused:
    """The rule of the incident, with its two holes: nobody proves anything, and a 401 is for ever."""
    if standing is not None and standing.current is not None:
        if bearer in (Bearer.PENDING, Bearer.ACTIVE, Bearer.RETIRING):
            return Accepted()
        if not live.any:
            return Accepted(grant=Grant.MINT)
    return decide_register(standing, Verdict.UNPROVEN, bearer=bearer, live=live)
