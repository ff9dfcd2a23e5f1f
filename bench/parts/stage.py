"""The stack of the incident benchmark, and the state of a workspace's boxes on it."""

import asyncio
import time

import httpx2

from devstack.boxes import BoxView
from devstack.console import Console
from devstack.stack import Stack

SETTLE_SECONDS = 25.0
"""A restart takes about 2 s on this endpoint, and 8 s more under the slowest fault."""

LASTING_SECONDS = 4.0
"""A shorter idle time does not count as an end: a restart may still be in progress."""

LOOK_SECONDS = 0.2


class Stage:
    """A stack with all contenders."""

    def __init__(self, stack: Stack, console: Console) -> None:
        self.stack = stack
        self.console = console

    def boxes(self, workspace_id: str) -> list[BoxView]:
        """Return the running boxes of the workspace."""
        return [each for each in self.stack.boxes if each.workspace == workspace_id]

    async def watched(self, box: BoxView, mode: str | None = None) -> dict[str, object]:
        """Set the mode of a box's runtime, if given. Returns its counts; empty if it does not answer."""
        url = f"http://{box.private_ip}:{self.stack.environment['BOX_RUNTIME_PORT']}/_control"
        try:
            async with httpx2.AsyncClient(timeout=2, trust_env=False) as http:
                answer = await (http.get(url) if mode is None else http.post(url, json={"mode": mode}))
                watched: dict[str, object] = answer.json()
        except (httpx2.HTTPError, ValueError):
            return {}
        return watched

    async def statuses(self, workspace_id: str, but: str = "") -> list[object]:
        """Return the status of each box's last heartbeat."""
        seen = [await self.watched(each) for each in self.boxes(workspace_id) if each.instance_id != but]
        return [None if each.get("mode") == "silent" else each.get("heartbeat_status") for each in seen]

    async def until_serving(self, workspace_id: str, but: str = "") -> float | None:
        """Wait until one new box is alive and stays accepted. Returns seconds, or None on timeout."""
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
