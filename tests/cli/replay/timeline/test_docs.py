"""The example in docs/replay.md is what the command prints."""

from cli.replay.timeline.render_text import render
from tests.cli.replay.timeline.building import story_of
from tests.documents import ROOT, Shown, sections

DOCS = ROOT / "docs" / "replay.md"


def test_the_documents_example_is_what_is_printed() -> None:
    [shown] = [it for section in sections(DOCS) for it in section.shown]
    assert shown.command == "onebox replay tests/replay/histories/incident.json"
    told = render(story_of("incident"))
    assert shown == Shown(command=shown.command, output=told.strip("\n")), (
        "docs/replay.md is out of date: put in what its command prints"
    )
