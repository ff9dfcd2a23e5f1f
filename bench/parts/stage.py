"""A stack on which control planes contend: which boxes a workspace has there, and how they are."""

import asyncio
import time

import httpx

from devstack.boxes import BoxView
from devstack.console import Console
from devstack.stack import Stack

SETTLE_SECONDS = 25.0
"""A restart takes a second or two on this endpoint, and eight more under the schedule's slowest fault."""

LASTING_SECONDS = 4.0
"""What is over sooner than that was no end: a restart may still be on its way."""

LOOK_SECONDS = 0.2


class Stage:
    """A stack with all contenders."""

    def __init__(self, stack: Stack, console: Console) -> None:
        self.stack = stack
        self.console = console

    def boxes(self, workspace_id: str) -> list[BoxView]:
        """Those that run."""
        return [each for each in self.stack.boxes if each.workspace == workspace_id]

    async def watched(self, box: BoxView, mode: str | None = None) -> dict[str, object]:
        """What a box's runtime did; put into a mode, if one is given. Empty if it does not answer."""
        url = f"http://{box.private_ip}:{self.stack.environment['BOX_RUNTIME_PORT']}/_control"
        try:
            async with httpx.AsyncClient(timeout=2, trust_env=False) as http:
                answer = await (http.get(url) if mode is None else http.post(url, json={"mode": mode}))
                watched: dict[str, object] = answer.json()
        except (httpx.HTTPError, ValueError):
            return {}
        return watched

    async def statuses(self, workspace_id: str, but: str = "") -> list[object]:
        """How the last beat of each box was answered; of a box that is none of the others'."""
        seen = [await self.watched(each) for each in self.boxes(workspace_id) if each.instance_id != but]
        return [None if each.get("mode") == "silent" else each.get("beat_status") for each in seen]

    async def until_serving(self, workspace_id: str, but: str = "") -> float | None:
        """Wait until one other box is alive, its beats are taken, and that lasts; seconds, if it does."""
        began, since = time.monotonic(), None
        while (now := time.monotonic()) - began < SETTLE_SECONDS + LASTING_SECONDS:
            counts = await asyncio.to_thread(self.console.aws.counts, workspace_id)
            if counts.alive_now != 1 or await self.statuses(workspace_id, but) != [200]:
                since = None
            elif since is None:
                since = now
            elif now - since > LASTING_SECONDS:
                return since - began
            await asyncio.sleep(LOOK_SECONDS)
        return None
