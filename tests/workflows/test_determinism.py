"""What workflow code may not use: clocks, randomness, the machine. Read off its text, all of it.

Workers run workflows outside Temporal's sandbox, which would look at what is executed, at run time.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import workflows

OUTSIDE = {"encryption"}
"""Modules that workflow code does not run: the codec works on payloads, outside of workflows."""

LIBRARIES = {
    *("collections.abc", "dataclasses", "datetime", "enum", "typing", "typing_extensions"),
    *("asyncio", "hashlib", "ipaddress", "json", "math", "re", "urllib.parse"),
    *("pydantic", "temporalio", "workflows"),
}
"""What workflow code may import. Of asyncio, what the SDK's event loop makes deterministic:"""

ASYNCIO = {"CancelledError", "Task", "create_task", "shield"}

FORBIDDEN = {
    *("datetime.now", "datetime.utcnow", "datetime.today", "date.today"),
    *("open", "input", "print", "id", "hash", "eval", "exec", "__import__", "globals"),
}
"""Called with `workflow.now()`, `workflow.uuid4()` and `workflow.random()` in their place, or not at all."""


def code() -> list[Path]:
    return sorted(path for path in Path(workflows.__path__[0]).rglob("*.py") if path.stem not in OUTSIDE)


def imported(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (each.name for each in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or "."


def used(tree: ast.AST) -> Iterator[str]:
    """Each name that is loaded, and each member of one, as they are written."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            yield node.id
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            yield f"{node.value.id}.{node.attr}"


def broken(text: str) -> list[str]:
    """What a module's text breaks."""
    tree = ast.parse(text)
    names = set(used(tree))
    tops = (name if name in LIBRARIES else name.partition(".")[0] for name in imported(tree))
    loops = {name for name in names if name.startswith("asyncio.")} - {f"asyncio.{it}" for it in ASYNCIO}
    return sorted({*(set(tops) - LIBRARIES), *(names & FORBIDDEN), *loops})


def test_the_code_is_found() -> None:
    assert len(code()) > 40


@pytest.mark.parametrize("path", code(), ids=lambda path: path.stem)
def test_workflow_code_uses_nothing_that_a_replay_would_find_otherwise(path: Path) -> None:
    assert broken(path.read_text()) == []


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("import random", ["random"]),
        ("import time as clock", ["time"]),
        ("from uuid import uuid4", ["uuid"]),
        ("import os.path", ["os"]),
        ("from urllib.request import urlopen", ["urllib"]),
        ("from datetime import datetime\nx = datetime.now()", ["datetime.now"]),
        (
            "from datetime import datetime\nx = map(datetime.fromtimestamp, y)\nz = datetime.today",
            ["datetime.today"],
        ),
        ("import asyncio\nasyncio.wait(())", ["asyncio.wait"]),
        ("def f():\n    return open('x')", ["open"]),
        ("x = hash('a')", ["hash"]),
        ("from workflows import state\nfrom temporalio import workflow\nx = workflow.now()", []),
    ],
)
def test_what_would_differ_is_found(text: str, found: list[str]) -> None:
    assert broken(text) == found
