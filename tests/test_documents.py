"""The parser of commands in documents, and the links and file names in all documents."""

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


def test_commands_are_found_under_their_headings_with_their_output(document: Path) -> None:
    _, listing, nothing = sections(document)
    assert listing.anchor == "list-whats-not-online"
    first, second = listing.shown
    assert first.command == "temporal workflow list \\\n    --query 'A = \"b\"'"
    assert first.output.splitlines() == ["  Status   WorkflowId", "  Running  ws-1"]
    assert (second.command, second.output) == ("true", "")
    assert (nothing.title, nothing.shown) == ("Nothing here", ())


def test_a_block_is_found_by_its_text(document: Path) -> None:
    assert block(document, "sh", "other") == "# not a heading\necho other\n"


@pytest.mark.parametrize(
    ("documented", "actual", "matches"),
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
def test_a_documented_output_is_compared_with_the_actual_one(
    documented: str, actual: str, matches: bool
) -> None:
    difference = Shown(command="ls", output=documented).difference(actual)
    assert (difference is None) is matches
    if difference is not None:
        assert actual in difference


def test_every_test_that_the_security_model_names_exists() -> None:
    named = set(re.findall(r"test_\w+\.py", (ROOT / "docs" / "security.md").read_text()))
    assert len(named) > 15
    assert named <= {path.name for path in (ROOT / "tests").rglob("test_*.py")}


LINK = re.compile(r"\]\((?!https?:)([^)#\s]*)(?:#([\w-]+))?\)")
FRONT = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"]


def links(document: Path) -> list[tuple[Path, str]]:
    """The targets of its relative links: file and anchor."""
    return [
        ((document.parent / target).resolve() if target else document, anchor)
        for target, anchor in LINK.findall(document.read_text())
    ]


@pytest.mark.parametrize("document", [*FRONT, *sorted((ROOT / "docs").glob("*.md"))], ids=lambda it: it.name)
def test_every_link_between_documents_leads_to_a_file_and_a_section(document: Path) -> None:
    for target, anchor in links(document):
        assert target.exists(), f"{document.name} links to {target}"
        assert not anchor or anchor in {it.anchor for it in sections(target)}, f"{target.name}#{anchor}"


def test_every_page_of_the_documentation_is_linked_from_the_readme() -> None:
    linked = {target for target, _ in links(ROOT / "README.md")}
    assert set((ROOT / "docs").glob("*.md")) <= linked


def test_every_file_that_a_document_names_exists() -> None:
    for document in (*FRONT, *(ROOT / "docs").glob("*.md")):
        for named in re.findall(
            r"`((?:activities|cli|deploy|docs|faults|register_api|store|tests|workers|workflows)/[\w./-]+\.\w+)`",
            document.read_text(),
        ):
            assert (ROOT / named).exists(), f"{document.name} names {named}"
