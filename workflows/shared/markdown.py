"""Escapes untrusted text for Markdown, so that it is shown as it is. Standard library only."""

import re
from collections.abc import Iterable, Sequence

MAX_CHARS = 500
"""Per text. PostgreSQL and the history have the whole text."""

_ACTIVE = re.compile(r"[\\`*\[\]<>|~]|(?<![0-9A-Za-z])_|_(?![0-9A-Za-z])")
"""Characters with a meaning within a line. An underscore inside a word, as in most codes, has none."""

_AT_THE_START = re.compile(r"^(\d{1,9}[.)]|[#+=-])")
_SCHEME = re.compile(r"(?i)\b(https?|ftp)://|\bwww\.")


def plain(text: object, longest: int = MAX_CHARS) -> str:
    """The text in one line, escaped: no markup, no link, no end of a table cell."""
    line = " ".join(str(text).split())
    if len(line) > longest:
        line = line[: longest - 1] + "…"
    line = _ACTIVE.sub(lambda found: "\\" + found.group(), line)
    # The UI turns URLs into links, which an operator could follow by mistake. An escaped scheme prevents it.
    line = _SCHEME.sub(lambda found: found.group().replace(":", "\\:").replace(".", "\\."), line)
    return _AT_THE_START.sub(lambda found: found.group()[:-1] + "\\" + found.group()[-1], line)


def code(text: object) -> str:
    """The text as inline code, without characters that could end it."""
    line = " ".join(str(text).split())[:MAX_CHARS]
    return f"`{line.replace('`', chr(39)).replace('|', '/')}`"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """The lines of a table, with an empty line before it; no lines if there are no rows."""
    lines = [f"| {' | '.join(row)} |" for row in rows]
    if not lines:
        return []
    return ["", f"| {' | '.join(head)} |", f"|{'---|' * len(head)}", *lines]
