"""Commands and their output in Markdown documents: read, and compared with what is really said.

Runs nothing. In a shown output `…` stands for anything within a line, and alone on a line for any lines;
how wide the columns of a table are does not count.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
ANYTHING = "…"

_FENCE = re.compile(r"^( *)(`{3,})(\w*)\n(.*?)^\1\2$", flags=re.DOTALL | re.MULTILINE)
_HEADING = re.compile(r"^#{1,4} (.+)$", flags=re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """A command, and what the document says that it prints."""

    command: str
    output: str

    def difference(self, really: str) -> str | None:
        """What to say if the document is wrong; None if it is right."""
        if re.fullmatch(_pattern(self.output), _narrow(really)):
            return None
        return f"$ {self.command}\n--- the document says\n{self.output}\n--- it really says\n{really}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """A heading, and the commands until the next one."""

    title: str
    shown: tuple[Shown, ...]

    @property
    def anchor(self) -> str:
        """Where a link to it leads, as on GitHub."""
        return re.sub(r"[^\w -]", "", self.title.lower()).replace(" ", "-")


def blocks(document: Path, language: str) -> list[str]:
    """The fenced blocks in this language."""
    return [text for _, _, found, text in _FENCE.findall(document.read_text()) if found == language]


def block(document: Path, language: str, containing: str) -> str:
    """The one block in this language that contains the words."""
    [found] = [text for text in blocks(document, language) if containing in text]
    return found


def sections(document: Path) -> list[Section]:
    """The document's sections, with the commands of their `console` blocks."""
    text = document.read_text()
    fences = [(fence.start(), fence.end(), fence) for fence in _FENCE.finditer(text)]
    heads = [
        head
        for head in _HEADING.finditer(text)
        if not any(begin <= head.start() < end for begin, end, _ in fences)
    ]
    ends = [head.start() for head in heads[1:]] + [len(text)]
    return [
        Section(
            title=head[1],
            shown=tuple(
                shown
                for begin, _, fence in fences
                if head.start() < begin < end and fence[3] == "console"
                for shown in _shown(fence[4])
            ),
        )
        for head, end in zip(heads, ends, strict=True)
    ]


def _shown(block: str) -> Iterator[Shown]:
    for text in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
        lines = text.splitlines()
        command = [lines.pop(0)]
        while command[-1].endswith("\\"):
            command.append(lines.pop(0))
        yield Shown(command="\n".join(command), output="\n".join(lines).strip("\n"))


def _narrow(text: str) -> str:
    lines = (" ".join(line.split()) for line in text.strip().splitlines())
    return "".join(f"{line}\n" for line in lines if line)


def _pattern(shown: str) -> str:
    pattern = ""
    for line in _narrow(shown).splitlines():
        if line == ANYTHING:
            pattern += r"(?:[^\n]*\n)*?"
        else:
            pattern += "[^\n]*?".join(re.escape(part) for part in line.split(ANYTHING)) + "\n"
    return pattern
