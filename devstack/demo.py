"""`onebox demo`: the incident of June, played on real parts, with the invariants checked at the end.

Shows what happens as it happens; what is true is read from Temporal, PostgreSQL and the AWS endpoint.
"""

import argparse
import asyncio
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from rich import box
from rich.console import Console as Screen
from rich.table import Table

from devstack.console import Console, connected, eventually
from devstack.stack import Stack
from workflows.workspace.messages import RequestOutcome, WorkspaceStatus
from workflows.workspace.requests import OutcomeKind
from workflows.workspace.state import Phase

WORKSPACES = ("ws-anna", "ws-ben", "ws-cleo")
VICTIM = WORKSPACES[0]

SETTINGS = {
    "HEARTBEAT_SECONDS": "0.5",
    "HEARTBEAT_STALE_SECONDS": "2",
    "ONEBOX_WATCH_SECONDS": "1",
}
"""Everything else as in production; only waiting for silence is shorter than 90 s."""


@dataclass(slots=True)
class DemoResults:
    """What the demo saw."""

    online_after: dict[str, float] = field(default_factory=dict)
    replaced_after: float = 0.0
    outcomes: list[RequestOutcome] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)

    def expect(self, what: str, seen: object, wanted: object) -> None:
        """Note what is not as it must be."""
        if seen != wanted:
            self.broken.append(f"{what}: {seen!r}, not {wanted!r}")


class ProgressPrinter:
    """Prints each change once, with the seconds since the beginning."""

    def __init__(self, screen: Screen) -> None:
        self._screen = screen
        self._start = time.monotonic()
        self._last: dict[str, str] = {}

    def say(self, text: str) -> None:
        """One line."""
        self._screen.print(f"[dim]{time.monotonic() - self._start:5.1f} s[/]  {text}", highlight=False)

    def watch(self, status: WorkspaceStatus) -> None:
        """One line where a workspace's status has changed."""
        instance = f", {status.instance_id}" if status.instance_id else ""
        text = f"{status.workspace_id}: [bold]{status.phase}[/], generation {status.generation}{instance}"
        if self._last.get(status.workspace_id) != text:
            self._last[status.workspace_id] = text
            self.say(text)


def demo(arguments: list[str]) -> int:
    """Play it; 0 if every invariant held, 1 if not."""
    parser = argparse.ArgumentParser(
        prog="onebox demo",
        description="Play the incident (three recreate requests within a second, and again later) on real "
        "parts: Temporal, PostgreSQL, an AWS endpoint, and boxes that are processes.",
    )
    parser.add_argument(
        "--page",
        type=Path,
        metavar="FILE",
        help=f"write what happened to {VICTIM} as a page to be read later",
    )
    page: Path | None = parser.parse_args(arguments).page
    screen = Screen()
    story = ProgressPrinter(screen)
    with tempfile.TemporaryDirectory(prefix="onebox-demo-") as directory:
        story.say("starting Temporal, PostgreSQL, the AWS endpoint, worker, register API and box host …")
        with Stack(Path(directory), free_ports=True, settings=SETTINGS) as stack:
            findings = asyncio.run(_play(stack, story, screen))
            if page is not None:
                story.say(f"what happened to {VICTIM} can be read in {page}: onebox replay {VICTIM} --html …")
                findings.expect("onebox replay: exit code", _replayed(stack, page), 0)
            story.say("stopping everything")
    for broken in findings.broken:
        screen.print(f"[bold red]BROKEN[/]  {broken}", highlight=False)
    if not findings.broken:
        screen.print("[bold green]All invariants held.[/] `make dev` leaves the stack up for you to try.")
    return 1 if findings.broken else 0


def _replayed(stack: Stack, page: Path) -> int:
    """As an operator would have it written: replayed, with the register API's trail beside it."""
    command = [sys.executable, "-m", "cli", "replay", VICTIM, "--html", str(page)]
    environment = {**stack.environment, "TEMPORAL_ADDRESS": stack.temporal_address}
    return subprocess.run(command, env=environment, stdout=subprocess.DEVNULL, check=False).returncode  # noqa: S603


async def _play(stack: Stack, progress: ProgressPrinter, screen: Screen) -> DemoResults:
    findings = DemoResults()
    async with connected(stack) as console:
        progress.say("three workspaces are started: temporal workflow start … --input '{}'")
        started = time.monotonic()

        async def provision(workspace: str) -> None:
            await console.start(workspace)
            await console.until_phase(workspace, Phase.ONLINE, tell=progress.watch)
            findings.online_after[workspace] = time.monotonic() - started

        await asyncio.gather(*(provision(workspace) for workspace in WORKSPACES))
        await _incident(console, progress, findings)
        await _check(console, findings)
        await _report(console, screen, findings)
    return findings


async def _incident(console: Console, progress: ProgressPrinter, results: DemoResults) -> None:
    await console.set_box_mode(VICTIM, "silent")
    progress.say(f"the box of {VICTIM} goes silent: it runs, but neither beats nor answers")
    await console.until_phase(VICTIM, Phase.DEGRADED, tell=progress.watch)
    observed = (await console.status(VICTIM)).generation

    progress.say("watchdog, auto-recovery and an admin ask for its recreation, all within a second")
    asked_at = time.monotonic()
    await _send_requests(console, observed)
    await console.until_phase(VICTIM, Phase.ONLINE, generation=observed + 1, tell=progress.watch)
    results.replaced_after = time.monotonic() - asked_at

    progress.say(f"later, the same three ask again, still about generation {observed}")
    await _send_requests(console, observed)
    results.outcomes = await eventually(
        lambda: console.requests(VICTIM), lambda requests: len(requests) >= 6, seconds=60
    )
    for outcome in results.outcomes:
        progress.say(f"  {outcome.requested_by}: [bold]{outcome.outcome}[/] — {outcome.detail}")


async def _send_requests(console: Console, observed: int) -> None:
    """The watchdogs send signals, the admin an update, as in the field."""
    await asyncio.gather(
        console.signal(VICTIM, requested_by="watchdog", reason="no heartbeat", observed_generation=observed),
        console.signal(
            VICTIM, requested_by="auto-recovery", reason="agent offline", observed_generation=observed
        ),
        console.ask(
            VICTIM, requested_by="admin:core-devops", reason="chat is dead", observed_generation=observed
        ),
    )


async def _check(console: Console, results: DemoResults) -> None:
    by_outcome = [outcome.outcome for outcome in results.outcomes]
    accepted, joined, stale = OutcomeKind.ACCEPTED, OutcomeKind.JOINED, OutcomeKind.STALE
    results.expect("first three requests", Counter(by_outcome[:3]), Counter({accepted: 1, joined: 2}))
    results.expect("later three requests", Counter(by_outcome[3:]), Counter({stale: 3}))
    for workspace in WORKSPACES:
        generations = 2 if workspace == VICTIM else 1
        counts = console.aws.counts(workspace)
        results.expect(f"{workspace}: launches", counts.launches, generations)
        results.expect(f"{workspace}: instances alive at once (I1)", counts.max_alive_at_once, 1)
        results.expect(f"{workspace}: DNS changes (I8)", counts.dns_changes, generations)
        tokens = await console.live_tokens(workspace)
        results.expect(
            f"{workspace}: live tokens (I4)", tokens, [{"generation": generations, "state": "active"}]
        )
        record = await console.record(workspace)
        results.expect(f"{workspace}: phase on the record", record.get("phase"), "online")
        results.expect(f"{workspace}: last_error on the record", record.get("last_error"), None)


async def _report(console: Console, screen: Screen, results: DemoResults) -> None:
    outcomes = Counter(str(outcome.outcome) for outcome in results.outcomes)
    told = ", ".join(f"{number} {outcome}" for outcome, number in outcomes.items())
    screen.print(f"\n{VICTIM}: 6 requests: {told}; replaced after {results.replaced_after:.1f} s")
    table = Table(box=box.SIMPLE, padding=(0, 1, 0, 0), show_edge=False)
    for heading in (
        "workspace",
        "record",
        "gen.",
        "launches",
        "alive",
        "tokens",
        "DNS",
        "online",
        "last error",
    ):
        table.add_column(heading, no_wrap=True)
    for workspace in WORKSPACES:
        counts, record = console.aws.counts(workspace), await console.record(workspace)
        error = record.get("last_error")
        table.add_row(
            workspace,
            str(record.get("phase")),
            str(record.get("generation")),
            str(counts.launches),
            f"≤ {counts.max_alive_at_once}",
            f"{len(await console.live_tokens(workspace))} live",
            f"{counts.dns_changes}×",
            f"{results.online_after[workspace]:.1f} s",
            str(error) if error else "none",
        )
    screen.print(table)
