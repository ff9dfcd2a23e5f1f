"""Parses commands and their output in Markdown documents, and compares the output with the actual one.

In a documented output, `…` matches any text within a line, and any lines if it stands alone. The width of
table columns is ignored.
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
    """A command and its documented output."""

    command: str
    output: str

    def difference(self, actual: str) -> str | None:
        """A report of both outputs if the actual one does not match; None if it does."""
        if re.fullmatch(_pattern(self.output), _narrow(actual)):
            return None
        return f"$ {self.command}\n--- documented\n{self.output}\n--- actual\n{actual}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """A heading, and the commands up to the next one."""

    title: str
    shown: tuple[Shown, ...]

    @property
    def anchor(self) -> str:
        """The anchor that GitHub gives the heading."""
        return re.sub(r"[^\w -]", "", self.title.lower()).replace(" ", "-")


def blocks(document: Path, language: str) -> list[str]:
    """The fenced blocks in a language."""
    return [text for _, _, tag, text in _FENCE.findall(document.read_text()) if tag == language]


def block(document: Path, language: str, containing: str) -> str:
    """The only block in a language that contains a text. Raises `ValueError` unless there is exactly one."""
    [match] = [text for text in blocks(document, language) if containing in text]
    return match


def sections(document: Path) -> list[Section]:
    """The sections of a document, with the commands of their `console` blocks."""
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
