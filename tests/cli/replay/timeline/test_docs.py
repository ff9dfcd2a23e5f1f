"""The example in docs/replay.md is what the command prints."""

from cli.replay.timeline.render_text import render
from tests.cli.replay.timeline.building import timeline_of
from tests.documents import ROOT, Shown, sections

DOCS = ROOT / "docs" / "replay.md"


def test_the_example_is_current() -> None:
    [shown] = [it for section in sections(DOCS) for it in section.shown]
    assert shown.command == "onebox replay tests/replay/histories/incident.json"
    text = render(timeline_of("incident"))
    assert shown == Shown(command=shown.command, output=text.strip("\n")), (
        "docs/replay.md is out of date: replace the example with the output of its command"
    )
