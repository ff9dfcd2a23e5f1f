"""Boxes whose beats are sent at one rate for all of them, and every answer kept: for judges.

They register as the others of the fleet do; nothing is sent twice, and no answer is forgiven here.
"""

import asyncio
import json
import time
from dataclasses import dataclass, field

import httpx
from typing_extensions import override

from devstack.aws.values import InstanceView
from devstack.http_client import HttpClient, NoResponse
from tests.integration.fleet import Fleet

AT_ONCE = 16
"""So many beats may be without an answer; a machine that is slower gets fewer of them."""

CATCH_UP = 10
"""Of a moment in which nothing could be sent, so many are made up for."""

REGISTER, HEARTBEAT = "/registry/register", "/registry/heartbeat"


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What was answered to one call of one box."""

    path: str
    workspace: str
    generation: int
    status: int
    """0: there was no answer."""
    code: str
    """Of a refusal; or the error instead of an answer."""
    at: float
    """When it came, as `time.time` tells it."""


@dataclass(kw_only=True)
class Beaters(Fleet):
    """The boxes of the fleet, of which one after the other beats."""

    rate: float
    exchanges: HttpClient
    """To the register API; what is said over them costs less than by an HTTP client for everything."""
    answers: list[Answer] = field(default_factory=list)
    _tokens: dict[str, tuple[InstanceView, str]] = field(default_factory=dict)
    """The live token of each instance that has registered and runs; who beat last is the last."""
    _under_way: set[asyncio.Task[None]] = field(default_factory=set)

    async def beat(self) -> None:
        """Send beats until cancelled; those under way are waited for."""
        sent, started = 0.0, time.monotonic()
        try:
            while True:
                due = (time.monotonic() - started) * self.rate
                sent = max(sent, due - CATCH_UP)
                while sent < due:
                    sent += 1
                    self._send()
                await asyncio.sleep(1 / self.rate)
        finally:
            await asyncio.gather(*self._under_way)

    def _send(self) -> None:
        if len(self._under_way) >= AT_ONCE or not self._tokens:
            return
        instance = next(iter(self._tokens))
        box = self._tokens[instance] = self._tokens.pop(instance)
        task = asyncio.create_task(self._beat(instance, *box))
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)

    async def _beat(self, instance: str, view: InstanceView, token: str) -> None:
        body: dict[str, object] = {"workspace_id": view.workspace, "active_tasks": 0}
        answer = await self._call(view, HEARTBEAT, token, body)
        if answer is not None and answer.status_code == 410:
            self._tokens.pop(instance, None)  # told to shut down, it does

    @override
    async def _live(self, view: InstanceView) -> None:
        token = await self._registered(view, await self._secret(view))
        self._tokens[view.instance_id] = view, token
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            self._tokens.pop(view.instance_id, None)

    @override
    async def _call(
        self, view: InstanceView, path: str, bearer: str, body: dict[str, object]
    ) -> httpx.Response | None:
        content = json.dumps(body).encode()
        headers = [
            (b"host", b"register-api"),
            (b"authorization", f"Bearer {bearer}".encode()),
            (b"content-type", b"application/json"),
            (b"content-length", str(len(content)).encode()),
        ]
        try:
            told = await self.exchanges.call("POST", path.encode(), headers=headers, body=content)
        except NoResponse as error:
            self._note(view, path, 0, str(error))
            return None
        answer = httpx.Response(told.status, headers=told.headers, content=told.content)
        code = "" if answer.is_success else str(answer.json().get("code", answer.text))
        self._note(view, path, answer.status_code, code)
        return answer

    def _note(self, view: InstanceView, path: str, status: int, code: str) -> None:
        self.answers.append(
            Answer(
                path=path,
                workspace=view.workspace or "",
                generation=view.generation or 0,
                status=status,
                code=code,
                at=time.time(),
            )
        )
