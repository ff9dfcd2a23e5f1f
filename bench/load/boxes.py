"""Boxes without processes: each running instance registers, sends heartbeats and answers its canary at once.

A generation's time is thus the control plane's own. The boxes speak the protocol as the box script does.
"""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from http.server import ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import httpx2

from bench.load.request_bytes import HEARTBEAT, REGISTER
from devstack.aws.client import AwsEndpoint
from devstack.aws.values import InstanceView
from devstack.runtime.conversation import Runtime
from devstack.runtime.server import Handler
from devstack.stack import Stack

LOOK_SECONDS = 0.005
"""Poll interval for running instances; it counts as the control plane's time."""

BEAT_SECONDS = 5.0

_SECRET = re.compile(r'"bootstrap_secret": "([^"]+)"')


@dataclass(slots=True, kw_only=True)
class Boxes:
    """All boxes of an endpoint."""

    aws: AwsEndpoint
    http: httpx2.AsyncClient
    port: int
    """Port of all boxes, each at its own address."""
    _living: dict[str, asyncio.Task[None]] = field(default_factory=dict)

    async def run(self) -> None:
        """Serve them until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            while True:
                views = await asyncio.to_thread(self.aws.instances)
                running = {view.instance_id: view for view in views if view.state == "running"}
                for gone in self._living.keys() - running.keys():
                    self._living.pop(gone).cancel()
                for instance_id in running.keys() - self._living.keys():
                    self._living[instance_id] = tasks.create_task(self._live(running[instance_id]))
                await asyncio.sleep(LOOK_SECONDS)

    async def _live(self, view: InstanceView) -> None:
        script = await asyncio.to_thread(self.aws.user_data, view.instance_id)
        [secret] = _SECRET.findall(script)
        body = {"id": view.workspace, "url": f"http://{view.private_ip}:{self.port}"}
        token: str | None = None
        while token is None:  # until the launch is recorded
            token = (await self._call(REGISTER, secret, body)).json().get("auth_token")
        while True:
            await self._call(HEARTBEAT, token, {"workspace_id": view.workspace, "active_tasks": 0})
            await asyncio.sleep(BEAT_SECONDS)

    async def _call(self, path: str, bearer: str, body: Mapping[str, object]) -> httpx2.Response:
        return await self.http.post(path, content=json.dumps(body), headers=_headers(bearer))


def _headers(bearer: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {bearer}", "Content-Type": "application/json"}


@asynccontextmanager
async def simulated_boxes(stack: Stack) -> AsyncIterator[None]:
    """Run boxes for the block, in a stack without its own."""
    port = int(stack.environment["BOX_RUNTIME_PORT"])
    Handler.runtime = Runtime(
        workspace_id="bench",
        platform_url=stack.register_api_url,
        configs=Path(stack.state_dir),
        address="0.0.0.0",  # noqa: S104 - each box has an address of its own, all of this machine's loopback
        port=port,
        heartbeat_seconds=BEAT_SECONDS,
    )
    with ThreadingHTTPServer(("0.0.0.0", port), Handler) as server, AwsEndpoint(stack.aws_url) as aws:  # noqa: S104
        Thread(target=server.serve_forever, daemon=True).start()
        async with httpx2.AsyncClient(base_url=stack.register_api_url, timeout=30, trust_env=False) as http:
            boxes = Boxes(aws=aws, http=http, port=port)
            running = asyncio.create_task(boxes.run())
            try:
                yield
            finally:
                running.cancel()
                with suppress(asyncio.CancelledError):
                    await running
                server.shutdown()
