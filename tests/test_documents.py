"""The reader of commands in documents: what it takes, and what it finds wrong."""

import re
from pathlib import Path

import pytest

from tests.documents import ROOT, Shown, block, sections

DOCUMENT = """\
# Runbook

## List what's not online

```console
$ temporal workflow list \\
    --query 'A = "b"'
  Status   WorkflowId
  Running  ws-1
$ true
```

```sh
# not a heading
echo other
```

### Nothing here
"""


@pytest.fixture
def document(tmp_path: Path) -> Path:
    path = tmp_path / "runbook.md"
    path.write_text(DOCUMENT)
    return path


def test_commands_stand_under_their_headings_with_their_output(document: Path) -> None:
    _, listing, nothing = sections(document)
    assert listing.anchor == "list-whats-not-online"
    first, second = listing.shown
    assert first.command == "temporal workflow list \\\n    --query 'A = \"b\"'"
    assert first.output.splitlines() == ["  Status   WorkflowId", "  Running  ws-1"]
    assert (second.command, second.output) == ("true", "")
    assert (nothing.title, nothing.shown) == ("Nothing here", ())


def test_a_block_is_found_by_its_words(document: Path) -> None:
    assert block(document, "sh", "other") == "# not a heading\necho other\n"


@pytest.mark.parametrize(
    ("shown", "really", "same"),
    [
        ("Running  ws-1", "  Running      ws-1   \n", True),
        ("Running  ws-1", "Running ws-2", False),
        ("Running  ws-1", "Running ws-1\nRunning ws-2", False),
        ("started at …, by alice", "started at 12:00, by alice", True),
        ("started at …, by alice", "started at 12:00\n, by alice", False),
        ("first\n…\nlast", "first\nlast", True),
        ("first\n…\nlast", "first\na\nb\nlast", True),
        ("first\n…\nlast", "first\na\nb", False),
        ("", "", True),
        ("", "something", False),
        ("a (b) [c] *", "a (b) [c] *", True),
    ],
)
def test_what_is_shown_is_compared_with_what_is_said(shown: str, really: str, same: bool) -> None:
    said = Shown(command="look", output=shown).difference(really)
    assert (said is None) is same
    if said is not None:
        assert really in said


def test_every_test_that_the_security_model_leans_on_is_there() -> None:
    named = set(re.findall(r"test_\w+\.py", (ROOT / "docs" / "security.md").read_text()))
    assert len(named) > 15
    assert named <= {path.name for path in (ROOT / "tests").rglob("test_*.py")}


LINK = re.compile(r"\]\((?!https?:)([^)#\s]*)(?:#([\w-]+))?\)")
FRONT = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"]


def links(document: Path) -> list[tuple[Path, str]]:
    """What it links to, and the section of that."""
    found = LINK.findall(document.read_text())
    return [
        ((document.parent / target).resolve() if target else document, anchor) for target, anchor in found
    ]


@pytest.mark.parametrize("document", [*FRONT, *sorted((ROOT / "docs").glob("*.md"))], ids=lambda it: it.name)
def test_links_between_the_documents_lead_to_sections(document: Path) -> None:
    for there, anchor in links(document):
        assert there.exists(), f"{document.name} links to {there}"
        assert not anchor or anchor in {it.anchor for it in sections(there)}, f"{there.name}#{anchor}"


def test_every_page_of_the_documentation_is_linked_from_the_readme() -> None:
    named = {there for there, _ in links(ROOT / "README.md")}
    assert set((ROOT / "docs").glob("*.md")) <= named


def test_what_documents_say_about_files_of_the_repository_is_true() -> None:
    for document in (*FRONT, *(ROOT / "docs").glob("*.md")):
        for named in re.findall(
            r"`((?:deploy|docs|tests|workflows|workers)/[\w./-]+\.\w+)`", document.read_text()
        ):
            assert (ROOT / named).exists(), f"{document.name} names {named}"
