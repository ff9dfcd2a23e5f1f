"""Runs groups of checks concurrently, each with a time limit and independent of the others' failures."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from cli.doctor.model import Finding, failed

GROUP_TIMEOUT_SECONDS = 60.0
"""Limit for one group. Each of its calls has a shorter limit, but calls add up."""

NOTICE_SECONDS = 3.0
"""Interval at which the pending groups are reported."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckGroup:
    """The checks of one subject."""

    subject: str
    run: Callable[[], Awaitable[Sequence[Finding]]]


async def run_checks(
    groups: Sequence[CheckGroup],
    *,
    notify: Callable[[str], None],
    timeout_seconds: float = GROUP_TIMEOUT_SECONDS,
    notice_seconds: float = NOTICE_SECONDS,
) -> list[Finding]:
    """The findings of all groups, in the order of the groups."""
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
    running = asyncio.ensure_future(group.run())
    done, _ = await asyncio.wait({running}, timeout=seconds)
    if not done:
        running.cancel()  # without waiting: it may be in a blocking call
        return [
            failed(
                f"{group.subject}.time",
                f"the check did not end within {seconds:g} s",
                "Packets are dropped on the way: check firewalls, routes and proxies.",
            )
        ]
    error = running.exception()
    if error is not None:
        # The exception's text may quote a secret.
        return [
            failed(
                f"{group.subject}.check",
                f"the check raised an unexpected error ({type(error).__name__})",
                "Please report this, with the output of `onebox doctor --json`.",
            )
        ]
    return running.result()
