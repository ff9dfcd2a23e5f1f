"""`onebox replay`: run a recorded history through the present code, and tell its story.

Changes nothing: neither on the server nor in the database.
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

from workers.beside import laid_beside
from workers.decrypting import decrypt
from workers.histories import HistoryUnreadable, fetch_chain, read_chain
from workers.recall import Recalled, recall
from workers.settings import PayloadSettings, load
from workers.story import moments, render_html, render_json, render_text
from workers.story.model import Moment, Story, Verdict
from workers.story.telling import tell
from workflows.encryption import Encryption, KeyUnknown

WORTH_SAYING = 2_000
"""Events of a run that take a few seconds to replay: whoever waits is told."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wishes:
    """What was asked for on the command line."""

    sources: tuple[str, ...]
    at: str | None
    html: Path | None
    as_json: bool


def run(words: list[str]) -> int:
    """Replay each run: 0 if all are deterministic under this code, 1 if not, 2 if nothing could be told."""
    wishes = _read(words)
    try:
        story = asyncio.run(_told(wishes))
        _show(story, wishes)
    except (HistoryUnreadable, KeyUnknown, moments.NoSuchPoint) as error:
        _say(str(error))
        return 2
    return 1 if any(verdict.problem is not None for verdict in story.verdicts) else 0


def _read(words: list[str]) -> Wishes:
    parser = argparse.ArgumentParser(
        prog="onebox replay",
        description="Replay a workspace's history against this code, and tell its story: who asked, what "
        "became of it, which boxes lived, when the token was minted, why it took that long. With "
        "DATABASE_URL set, the register API's audit trail and the delegations of its time are told too. "
        "Encrypted payloads are read with PAYLOAD_KEYS.",
    )
    parser.add_argument(
        "sources",
        nargs="+",
        metavar="WORKSPACE_ID|history.json",
        help="a workspace (all its runs are read from the Temporal server), or files as exported by "
        "`temporal workflow show --output json` or the UI, one for each run",
    )
    parser.add_argument(
        "--at",
        metavar="EVENT|TIME",
        help="show the whole state at a point instead: an event (57, or RUN:EVENT), a time (01:47:52, or "
        "with its date), or +SECONDS since the beginning",
    )
    parser.add_argument("--html", type=Path, metavar="FILE", help="write the story as a page of its own")
    parser.add_argument("--json", action="store_true", help="tell it to a machine")
    given = parser.parse_args(words)
    files = [source.endswith(".json") for source in given.sources]
    if len(files) > 1 and not all(files):
        parser.error("one workspace, or files of one workspace's runs")
    return Wishes(sources=tuple(given.sources), at=given.at, html=given.html, as_json=given.json)


async def _told(wishes: Wishes) -> Story:
    first = wishes.sources[0]
    histories = (
        read_chain([Path(source) for source in wishes.sources])
        if first.endswith(".json")
        else await fetch_chain(first)
    )
    codec = Encryption(load(PayloadSettings).payload_key_ring)
    verdicts: list[Verdict] = []
    seen: list[Moment] = []
    for number, history in enumerate(histories, start=1):
        if len(history.events) >= WORTH_SAYING or len(histories) > 1:
            _say(f"replaying run {number} of {len(histories)}, {len(history.events)} events …")
        await decrypt(history, codec)
        recalled = await recall(history, run=number)
        verdicts.append(Verdict(run=number, events=len(history.events), problem=problem(recalled)))
        seen += recalled.moments
    story = tell([history.events for history in histories], verdicts, seen)
    database = os.environ.get("DATABASE_URL", "")
    return await laid_beside(story, database) if database else story


async def check(history: WorkflowHistory, *, workflows: Sequence[type] | None = None) -> str | None:
    """Replay one run; what differs, or None."""
    return problem(await (recall(history, workflows=workflows) if workflows else recall(history)))


def problem(recalled: Recalled) -> str | None:
    """What differs: the event and the command, and how the SDK puts it."""
    if recalled.failure is None:
        return None
    if recalled.difference is None:
        return recalled.failure
    return f"{recalled.difference} ({recalled.failure})"


def _show(story: Story, wishes: Wishes) -> None:
    if wishes.html is not None:
        try:
            wishes.html.write_text(render_html.render(story), encoding="utf-8")
        except OSError as error:
            raise HistoryUnreadable(f"{wishes.html} cannot be written: {error.strerror}") from None
        _say(f"the page is in {wishes.html}")
    if wishes.at is not None:
        moment = moments.at_point(story, wishes.at)
        if wishes.as_json:
            sys.stdout.write(json.dumps(render_json.moment_value(moment), indent=2) + "\n")
        else:
            told = [*render_text.verdicts(story), *moments.lines(moment)]
            sys.stdout.write("\n".join(told) + "\n")
    elif wishes.as_json:
        sys.stdout.write(json.dumps(render_json.value(story), indent=2) + "\n")
    elif wishes.html is None:
        sys.stdout.write(render_text.render(story))
    else:
        sys.stdout.write("\n".join(render_text.verdicts(story)) + "\n")


def _say(text: str) -> None:
    sys.stderr.write(f"onebox replay: {text}\n")
