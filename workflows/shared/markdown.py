"""Text of strangers as Markdown that shows it, and does nothing else. Standard library only.

Knows how it is written; what it is about is its callers'.
"""

import re
from collections.abc import Iterable, Sequence

MAX_CHARS = 500
"""Of one piece of text: the whole is in the record, and the page is read at a glance."""

_ACTIVE = re.compile(r"[\\`*\[\]<>|~]|(?<![0-9A-Za-z])_|_(?![0-9A-Za-z])")
"""What opens or closes something within a line. An underscore inside a word, as in most codes, does not."""

_AT_THE_START = re.compile(r"^(\d{1,9}[.)]|[#+=-])")
_SCHEME = re.compile(r"(?i)\b(https?|ftp)://|\bwww\.")


def plain(text: object, longest: int = MAX_CHARS) -> str:
    """One line that shows the text as it is: no markup, no link, no end of a table's cell."""
    line = " ".join(str(text).split())
    if len(line) > longest:
        line = line[: longest - 1] + "…"
    line = _ACTIVE.sub(lambda found: "\\" + found.group(), line)
    # Links that a reader of the UI could follow by mistake: autolinks need the whole scheme.
    line = _SCHEME.sub(lambda found: found.group().replace(":", "\\:").replace(".", "\\."), line)
    return _AT_THE_START.sub(lambda found: found.group()[:-1] + "\\" + found.group()[-1], line)


def code(text: object) -> str:
    """The text as code, in a line or a table; nothing in it can end the code."""
    line = " ".join(str(text).split())[:MAX_CHARS]
    return f"`{line.replace('`', chr(39)).replace('|', '/')}`"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """The lines of a table, with an empty one before it; none at all if there are no rows."""
    lines = [f"| {' | '.join(row)} |" for row in rows]
    if not lines:
        return []
    return ["", f"| {' | '.join(head)} |", f"|{'---|' * len(head)}", *lines]
