"""The command `onebox replay`: replays histories with the current code, and prints a timeline.

Changes nothing on the server or in the database.
"""

import argparse
import asyncio
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from temporalio.client import WorkflowHistory

from cli.replay.database_context import with_database_context
from cli.replay.histories import HistoryUnreadable, fetch_chain, read_chain
from cli.replay.timeline import render_html, render_json, render_text, states
from cli.replay.timeline.build import build_timeline
from cli.replay.timeline.model import ReplayVerdict, Timeline
from workers.history.decryption import decrypt
from workers.history.replay_run import ReplayedRun, replay_run
from workers.history.state_snapshot import StateSnapshot
from workers.settings.common import PayloadSettings, load
from workflows.shared.encryption import Encryption, KeyUnknown

LARGE_HISTORY_EVENTS = 2_000
"""A longer run takes seconds to replay; the command then reports its progress."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CliOptions:
    """The command-line options."""

    sources: tuple[str, ...]
    at: str | None
    html: Path | None
    as_json: bool


def run(arguments: list[str]) -> int:
    """Replay the runs; return 0 if all are deterministic, 1 if not, 2 if there is nothing to show."""
    options = _parse(arguments)
    try:
        timeline = asyncio.run(_build(options))
        _show(timeline, options)
    except (HistoryUnreadable, KeyUnknown, states.PointNotFound) as error:
        _log(str(error))
        return 2
    return 1 if any(verdict.problem is not None for verdict in timeline.verdicts) else 0


def _parse(arguments: list[str]) -> CliOptions:
    parser = argparse.ArgumentParser(
        prog="onebox replay",
        description="Replay a workspace's history with this code, and show what happened: requests and their "
        "outcomes, boxes, tokens, durations, and a timeline. With DATABASE_URL set, the timeline includes "
        "calls to the register API and delegations. PAYLOAD_KEYS decrypts encrypted payloads.",
    )
    parser.add_argument(
        "sources",
        nargs="+",
        metavar="WORKSPACE_ID|history.json",
        help="a workspace, whose runs are read from the Temporal server, or one file for each run, exported "
        "by `temporal workflow show --output json` or the UI",
    )
    parser.add_argument(
        "--at",
        metavar="EVENT|TIME",
        help="show the whole state at a point: an event (57, or RUN:EVENT), a time (01:47:52, or with a "
        "date), or +SECONDS since the beginning",
    )
    parser.add_argument("--html", type=Path, metavar="FILE", help="write the timeline as an HTML page")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args(arguments)
    files = [source.endswith(".json") for source in options.sources]
    if len(files) > 1 and not all(files):
        parser.error("give one workspace, or the files of one workspace's runs")
    return CliOptions(sources=tuple(options.sources), at=options.at, html=options.html, as_json=options.json)


async def _build(options: CliOptions) -> Timeline:
    first = options.sources[0]
    histories = (
        read_chain([Path(source) for source in options.sources])
        if first.endswith(".json")
        else await fetch_chain(first)
    )
    codec = Encryption(load(PayloadSettings).payload_key_ring)
    verdicts: list[ReplayVerdict] = []
    snapshots: list[StateSnapshot] = []
    for number, history in enumerate(histories, start=1):
        if len(history.events) >= LARGE_HISTORY_EVENTS or len(histories) > 1:
            _log(f"replaying run {number} of {len(histories)}, {len(history.events)} events …")
        await decrypt(history, codec)
        replayed = await replay_run(history, run=number)
        verdicts.append(ReplayVerdict(run=number, events=len(history.events), problem=problem(replayed)))
        snapshots += replayed.snapshots
    timeline = build_timeline([history.events for history in histories], verdicts, snapshots)
    database = os.environ.get("DATABASE_URL", "")
    return await with_database_context(timeline, database) if database else timeline


async def check(history: WorkflowHistory, *, workflows: Sequence[type] | None = None) -> str | None:
    """Replay one run; return the first difference, or None."""
    return problem(await (replay_run(history, workflows=workflows) if workflows else replay_run(history)))


def problem(replayed: ReplayedRun) -> str | None:
    """The first difference with the SDK's message; None if there is none."""
    if replayed.failure is None:
        return None
    if replayed.difference is None:
        return replayed.failure
    return f"{replayed.difference} ({replayed.failure})"


def _show(timeline: Timeline, options: CliOptions) -> None:
    if options.html is not None:
        try:
            options.html.write_text(render_html.render(timeline), encoding="utf-8")
        except OSError as error:
            raise HistoryUnreadable(f"{options.html} cannot be written: {error.strerror}") from None
        _log(f"the page is in {options.html}")
    if options.at is not None:
        snapshot = states.snapshot_at(timeline, options.at)
        if options.as_json:
            sys.stdout.write(json.dumps(render_json.snapshot_value(snapshot), indent=2) + "\n")
        else:
            lines = [*render_text.verdicts(timeline), *states.lines(snapshot)]
            sys.stdout.write("\n".join(lines) + "\n")
    elif options.as_json:
        sys.stdout.write(json.dumps(render_json.value(timeline), indent=2) + "\n")
    elif options.html is None:
        sys.stdout.write(render_text.render(timeline))
    else:
        sys.stdout.write("\n".join(render_text.verdicts(timeline)) + "\n")


def _log(text: str) -> None:
    sys.stderr.write(f"onebox replay: {text}\n")
