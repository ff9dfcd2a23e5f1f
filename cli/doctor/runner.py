"""Running all examinations side by side, each in its time, whatever becomes of the others.

It knows none of them.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from cli.doctor.model import Finding, failed

GROUP_TIMEOUT_SECONDS = 60.0
"""Seconds. Each call of an examination has a shorter limit of its own; together they may add up."""

NOTICE_SECONDS = 3.0
"""Whoever waits for longer is told for whom."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckGroup:
    """A subject, and how it is looked at."""

    subject: str
    run: Callable[[], Awaitable[Sequence[Finding]]]


async def run_checks(
    groups: Sequence[CheckGroup],
    *,
    notify: Callable[[str], None],
    timeout_seconds: float = GROUP_TIMEOUT_SECONDS,
    notice_seconds: float = NOTICE_SECONDS,
) -> list[Finding]:
    """The findings of all, in the order of the examinations."""
    running = {
        each.subject: asyncio.create_task(_bounded(each, timeout_seconds), name=each.subject)
        for each in groups
    }
    pending = set(running.values())
    while pending:
        _, pending = await asyncio.wait(pending, timeout=notice_seconds)
        if pending:
            notify(f"still waiting for {', '.join(sorted(task.get_name() for task in pending))} …")
    return [finding for task in running.values() for finding in task.result()]


async def _bounded(group: CheckGroup, seconds: float) -> Sequence[Finding]:
    looking = asyncio.ensure_future(group.run())
    done, _ = await asyncio.wait({looking}, timeout=seconds)
    if not done:
        looking.cancel()  # and not waited for: it may be in the middle of a blocking call
        return [
            failed(
                f"{group.subject}.time",
                f"it did not end within {seconds:g} s",
                "Something on the way swallows packets: look at firewalls, routes and proxies.",
            )
        ]
    broke = looking.exception()
    if broke is not None:
        # Its text is not shown: nobody has looked whether it quotes a secret.
        return [
            failed(
                f"{group.subject}.check",
                f"the check itself broke ({type(broke).__name__})",
                "Please report this, with what `onebox doctor --json` says.",
            )
        ]
    return looking.result()
