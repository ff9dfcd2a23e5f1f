"""The example in docs/replay.md is what the command prints."""

from pathlib import Path

from tests.workers.story.telling import story_of
from workers.story.render_text import render

DOCS = Path(__file__).parents[3] / "docs" / "replay.md"


def test_the_documents_example_is_what_is_printed() -> None:
    shown = DOCS.read_text().partition("$ onebox replay tests/replay/histories/incident.json\n")[2]
    assert shown.partition("```")[0] == render(story_of("incident")), (
        "docs/replay.md is out of date: put in what its command prints"
    )
