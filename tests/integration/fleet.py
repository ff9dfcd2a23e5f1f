"""A fleet of boxes in one task: each running instance registers and sends heartbeats, unless told otherwise.

Speaks the register protocol like the box script. There are no processes, so fifty boxes are cheap.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import TypeVar

import httpx2

from devstack.aws.client import AwsEndpoint
from devstack.aws.values import InstanceView
from devstack.stack import PARTS, Stack

LOOK_SECONDS = 0.1
BEAT_SECONDS = 5.0

T = TypeVar("T")

_SECRET = re.compile(r'"bootstrap_secret": "([^"]+)"')


@dataclass(kw_only=True)
class Fleet:
    """All boxes of an endpoint; serves those that run."""

    aws: AwsEndpoint
    http: httpx2.AsyncClient
    bad: set[tuple[str, int]] = field(default_factory=set)
    """Workspace and generation whose box runs but never calls."""
    fewest: dict[str, int] = field(default_factory=dict)
    """Minimum of concurrently running instances among the workspaces with a prefix."""
    beat_seconds: float = BEAT_SECONDS
    look_seconds: float = LOOK_SECONDS
    apart: frozenset[str] = frozenset()
    """Workspaces whose boxes reach the register API at another address."""
    other_way: httpx2.AsyncClient | None = None
    _boxes: dict[str, asyncio.Task[None]] = field(default_factory=dict)

    async def run(self) -> None:
        """Serve the boxes until cancelled."""
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
        """Track the minimum of running instances of these from now on."""
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
    ) -> httpx2.Response | None:
        way = self.other_way if view.workspace in self.apart and self.other_way else self.http
        try:
            return await way.post(path, json=body, headers={"Authorization": f"Bearer {bearer}"})
        except httpx2.TransportError:
            return None


async def _patiently(ask: Callable[[], T]) -> T:
    """The endpoint's response; on a busy machine it may be late, or a connection may break."""
    while True:
        try:
            return await asyncio.to_thread(ask)
        except httpx2.TransportError:
            await asyncio.sleep(LOOK_SECONDS)


@contextmanager
def boxless(settings: Mapping[str, str], *, workers: int = 1, apis: int = 1) -> Iterator[Stack]:
    """A stack without box processes; the tests bring their own boxes."""
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
    """Run boxes for the block."""
    limits = httpx2.Limits(max_connections=20)
    async with httpx2.AsyncClient(base_url=register_api, timeout=10, trust_env=False, limits=limits) as http:
        fleet = Fleet(aws=aws, http=http)
        async with going_on(fleet.run()):
            yield fleet


@asynccontextmanager
async def going_on(work: Coroutine[None, None, None]) -> AsyncIterator[None]:
    """Run concurrently with the block; a failure ends the block."""
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(work)
        try:
            yield
        finally:
            task.cancel()
