"""Boxes whose heartbeats are sent at one common rate; every response is kept.

They register like the other boxes of the fleet. Nothing is sent twice, and every error counts.
"""

import asyncio
import json
import time
from dataclasses import dataclass, field

import httpx2
from typing_extensions import override

from devstack.aws.values import InstanceView
from devstack.http_client import HttpClient, NoResponse
from tests.integration.fleet import Fleet

AT_ONCE = 16
"""Maximum of heartbeats in progress; a slower machine sends fewer."""

CATCH_UP = 10
"""Maximum of heartbeats sent late after a stall."""

REGISTER, HEARTBEAT = "/registry/register", "/registry/heartbeat"


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """The response to one call of one box."""

    path: str
    workspace: str
    generation: int
    status: int
    """0 without a response."""
    code: str
    """Error code of a refusal, or the error instead of a response."""
    at: float
    """When it arrived, by `time.time`."""


@dataclass(kw_only=True)
class Beaters(Fleet):
    """The boxes of the fleet, which send heartbeats in turn."""

    rate: float
    exchanges: HttpClient
    """Connections to the register API; cheaper than an HTTP client per box."""
    answers: list[Answer] = field(default_factory=list)
    _tokens: dict[str, tuple[InstanceView, str]] = field(default_factory=dict)
    """The live token of each registered, running instance; the most recent sender is last."""
    _under_way: set[asyncio.Task[None]] = field(default_factory=set)

    async def beat(self) -> None:
        """Send heartbeats until cancelled, then wait for those in progress."""
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
            self._tokens.pop(instance, None)  # a superseded box shuts down

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
    ) -> httpx2.Response | None:
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
        answer = httpx2.Response(told.status, headers=told.headers, content=told.content)
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
