"""`onebox demo`: replays the June incident on a real stack and checks the invariants at the end.

It reads the results from Temporal, PostgreSQL and the AWS endpoint.
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
from workflows.workspace.enums import Phase
from workflows.workspace.messages import RequestOutcome, WorkspaceStatus
from workflows.workspace.requests import OutcomeKind

WORKSPACES = ("ws-anna", "ws-ben", "ws-cleo")
VICTIM = WORKSPACES[0]

SETTINGS = {
    "HEARTBEAT_SECONDS": "0.5",
    "HEARTBEAT_STALE_SECONDS": "2",
    "ONEBOX_WATCH_SECONDS": "1",
}
"""Shorter heartbeat limits than in production, where a heartbeat is stale after 90 s."""


@dataclass(slots=True)
class DemoResults:
    """Results of the demo run."""

    online_after: dict[str, float] = field(default_factory=dict)
    replaced_after: float = 0.0
    outcomes: list[RequestOutcome] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)

    def expect(self, what: str, seen: object, wanted: object) -> None:
        """Record a violation if the two values differ."""
        if seen != wanted:
            self.broken.append(f"{what}: found {seen!r}, expected {wanted!r}")


class ProgressPrinter:
    """Prints each change once, with the seconds since the start."""

    def __init__(self, screen: Screen) -> None:
        self._screen = screen
        self._start = time.monotonic()
        self._last: dict[str, str] = {}

    def say(self, text: str) -> None:
        """Print one line."""
        elapsed = time.monotonic() - self._start
        self._screen.print(f"[dim]{elapsed:5.1f} s[/]  {text}", highlight=False, soft_wrap=True)

    def watch(self, status: WorkspaceStatus) -> None:
        """Print one line if the workspace's status has changed."""
        instance = f", {status.instance_id}" if status.instance_id else ""
        text = f"{status.workspace_id}: [bold]{status.phase}[/], generation {status.generation}{instance}"
        if self._last.get(status.workspace_id) != text:
            self._last[status.workspace_id] = text
            self.say(text)


def demo(arguments: list[str]) -> int:
    """Run the demo. Returns 0 if every invariant held, 1 if not."""
    parser = argparse.ArgumentParser(
        prog="onebox demo",
        description="Replay the incident (three recreate requests within a second, and again later) on a "
        "real stack: Temporal, PostgreSQL, a local AWS endpoint, and boxes that run as processes.",
    )
    parser.add_argument(
        "--page",
        type=Path,
        metavar="FILE",
        help=f"write the timeline of {VICTIM} as an HTML page",
    )
    page: Path | None = parser.parse_args(arguments).page
    screen = Screen()
    progress = ProgressPrinter(screen)
    with tempfile.TemporaryDirectory(prefix="onebox-demo-") as directory:
        progress.say("Starting Temporal, PostgreSQL, AWS endpoint, worker, register API and box host …")
        with Stack(Path(directory), free_ports=True, settings=SETTINGS) as stack:
            findings = asyncio.run(_play(stack, progress, screen))
            if page is not None:
                progress.say(f"Writing the timeline of {VICTIM} to {page}: onebox replay {VICTIM} --html …")
                findings.expect("onebox replay: exit code", _replayed(stack, page), 0)
            progress.say("Stopping the stack")
    for broken in findings.broken:
        screen.print(f"[bold red]VIOLATED[/]  {broken}", highlight=False)
    if not findings.broken:
        screen.print("[bold green]All invariants held.[/] Run `make dev` to try it yourself.")
    return 1 if findings.broken else 0


def _replayed(stack: Stack, page: Path) -> int:
    """Write the timeline page as an operator would. Returns the exit code of `onebox replay`."""
    command = [sys.executable, "-m", "cli", "replay", VICTIM, "--html", str(page)]
    environment = {**stack.environment, "TEMPORAL_ADDRESS": stack.temporal_address}
    return subprocess.run(command, env=environment, stdout=subprocess.DEVNULL, check=False).returncode  # noqa: S603


async def _play(stack: Stack, progress: ProgressPrinter, screen: Screen) -> DemoResults:
    findings = DemoResults()
    async with connected(stack) as console:
        progress.say("Starting three workspaces: temporal workflow start … --input '{}'")
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
    progress.say(f"The box of {VICTIM} hangs: it runs, but sends no heartbeats and answers no calls")
    await console.until_phase(VICTIM, Phase.DEGRADED, tell=progress.watch)
    observed = (await console.status(VICTIM)).generation

    progress.say("Watchdog, auto-recovery and an admin each request a recreate within a second")
    requested_at = time.monotonic()
    await _send_requests(console, observed)
    await console.until_phase(VICTIM, Phase.ONLINE, generation=observed + 1, tell=progress.watch)
    results.replaced_after = time.monotonic() - requested_at

    progress.say(f"Later, the same three request it again, still for generation {observed}")
    await _send_requests(console, observed)
    results.outcomes = await eventually(
        lambda: console.requests(VICTIM), lambda requests: len(requests) >= 6, seconds=60
    )
    progress.say("The outcomes of all six:")
    for outcome in results.outcomes:
        progress.say(f"  {outcome.requested_by}: [bold]{outcome.outcome}[/] — {outcome.detail}")


async def _send_requests(console: Console, observed: int) -> None:
    """Send two requests as signals and one as an update, as the real callers do."""
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
        results.expect(f"{workspace}: recorded phase", record.get("phase"), "online")
        results.expect(f"{workspace}: recorded last_error", record.get("last_error"), None)


async def _report(console: Console, screen: Screen, results: DemoResults) -> None:
    outcomes = Counter(str(outcome.outcome) for outcome in results.outcomes)
    outcome_counts = ", ".join(f"{number} {outcome}" for outcome, number in outcomes.items())
    screen.print(f"\n{VICTIM}: 6 requests ({outcome_counts}); replaced after {results.replaced_after:.1f} s")
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
