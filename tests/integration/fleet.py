"""A fleet of boxes in one task: each running instance registers and beats, unless it is told to be a bad one.

Speaks the register protocol as the box script does; no processes, so that fifty of them cost nothing.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import TypeVar

import httpx

from devstack.aws.client import AwsEndpoint
from devstack.aws.values import InstanceView
from devstack.stack import PARTS, Stack

LOOK_SECONDS = 0.1
BEAT_SECONDS = 5.0

T = TypeVar("T")

_SECRET = re.compile(r'"bootstrap_secret": "([^"]+)"')


@dataclass(kw_only=True)
class Fleet:
    """All boxes of an endpoint; looks after those that run."""

    aws: AwsEndpoint
    http: httpx.AsyncClient
    bad: set[tuple[str, int]] = field(default_factory=set)
    """Workspace and generation whose box runs, and never says a word."""
    fewest: dict[str, int] = field(default_factory=dict)
    """Of the workspaces that begin with a name: how few of them had a running instance at once."""
    beat_seconds: float = BEAT_SECONDS
    look_seconds: float = LOOK_SECONDS
    apart: frozenset[str] = frozenset()
    """Workspaces whose boxes reach the register API on another way."""
    other_way: httpx.AsyncClient | None = None
    _boxes: dict[str, asyncio.Task[None]] = field(default_factory=dict)

    async def run(self) -> None:
        """Look after the boxes until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            while True:
                views = await _patiently(self.aws.instances)
                running = {view.instance_id: view for view in views if view.state == "running"}
                for name in [name for name in self._boxes if name not in running]:
                    self._boxes.pop(name).cancel()
                for name, view in running.items():
                    if name not in self._boxes and not self._is_bad(view):
                        self._boxes[name] = tasks.create_task(self._live(view))
                self._count(running.values())
                await asyncio.sleep(self.look_seconds)

    def watch(self, prefix: str, members: int) -> None:
        """Remember from now on how few of these have a running instance."""
        self.fewest[prefix] = members

    def _is_bad(self, view: InstanceView) -> bool:
        return (view.workspace or "", view.generation or 0) in self.bad

    def _count(self, running: Iterable[InstanceView]) -> None:
        names = {view.workspace or "" for view in running}
        for prefix, fewest in self.fewest.items():
            self.fewest[prefix] = min(fewest, sum(name.startswith(prefix) for name in names))

    async def _live(self, view: InstanceView) -> None:
        token = await self._registered(view, await self._secret(view))
        while True:
            await self._call(
                view, "/registry/heartbeat", token, {"workspace_id": view.workspace, "active_tasks": 0}
            )
            await asyncio.sleep(self.beat_seconds)

    async def _secret(self, view: InstanceView) -> str:
        script = await _patiently(lambda: self.aws.user_data(view.instance_id))
        found = _SECRET.search(script)
        assert found is not None
        return found[1]

    async def _registered(self, view: InstanceView, secret: str) -> str:
        while True:
            answer = await self._call(view, "/registry/register", secret, {"id": view.workspace, "url": ""})
            if answer is not None and answer.status_code == 200:
                return str(answer.json()["auth_token"])
            await asyncio.sleep(LOOK_SECONDS)

    async def _call(
        self, view: InstanceView, path: str, bearer: str, body: dict[str, object]
    ) -> httpx.Response | None:
        way = self.other_way if view.workspace in self.apart and self.other_way else self.http
        try:
            return await way.post(path, json=body, headers={"Authorization": f"Bearer {bearer}"})
        except httpx.TransportError:
            return None


async def _patiently(ask: Callable[[], T]) -> T:
    """The endpoint's answer; on a busy machine it may be late, or a connection break."""
    while True:
        try:
            return await asyncio.to_thread(ask)
        except httpx.TransportError:
            await asyncio.sleep(LOOK_SECONDS)


@contextmanager
def boxless(settings: Mapping[str, str], *, workers: int = 1, apis: int = 1) -> Iterator[Stack]:
    """A stack without the processes of boxes: the tests bring their own."""
    with Stack(
        free_ports=True,
        fsync=False,
        parts=[part for part in PARTS if part != "boxes"],
        settings=settings,
        workers=workers,
        apis=apis,
        pending_seconds=0.1,
        terminating_seconds=0.1,
    ) as stack:
        yield stack


@asynccontextmanager
async def inhabited(aws: AwsEndpoint, register_api: str) -> AsyncIterator[Fleet]:
    """Boxes for the block."""
    limits = httpx.Limits(max_connections=20)
    async with httpx.AsyncClient(base_url=register_api, timeout=10, trust_env=False, limits=limits) as http:
        fleet = Fleet(aws=aws, http=http)
        async with going_on(fleet.run()):
            yield fleet


@asynccontextmanager
async def going_on(work: Coroutine[None, None, None]) -> AsyncIterator[None]:
    """Beside the block, until its end; if it fails, the block ends, too."""
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(work)
        try:
            yield
        finally:
            task.cancel()
