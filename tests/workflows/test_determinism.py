"""Workflow code uses no clock, no randomness and no I/O. These tests read the source.

Workers run workflows outside Temporal's sandbox, which would check this at run time.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import workflows

OUTSIDE = {"encryption"}
"""Modules that run outside of workflows: the codec."""

LIBRARIES = {
    *("collections.abc", "dataclasses", "datetime", "enum", "typing", "typing_extensions"),
    *("asyncio", "hashlib", "ipaddress", "json", "math", "re", "urllib.parse"),
    *("pydantic", "temporalio", "workflows"),
}
"""What workflow code may import."""

ASYNCIO = {"CancelledError", "Task", "create_task", "shield"}
"""What workflow code may use of asyncio: the SDK's event loop makes these deterministic."""

FORBIDDEN = {
    *("datetime.now", "datetime.utcnow", "datetime.today", "date.today"),
    *("open", "input", "print", "id", "hash", "eval", "exec", "__import__", "globals"),
}
"""Workflow code uses `workflow.now()`, `workflow.uuid4()` and `workflow.random()` instead."""


def code() -> list[Path]:
    return sorted(path for path in Path(workflows.__path__[0]).rglob("*.py") if path.stem not in OUTSIDE)


def imported(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (each.name for each in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or "."


def used(tree: ast.AST) -> Iterator[str]:
    """Each name, and each attribute of a name, as written."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            yield node.id
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            yield f"{node.value.id}.{node.attr}"


def broken(text: str) -> list[str]:
    """The forbidden names in a module's source."""
    tree = ast.parse(text)
    names = set(used(tree))
    tops = (name if name in LIBRARIES else name.partition(".")[0] for name in imported(tree))
    loops = {name for name in names if name.startswith("asyncio.")} - {f"asyncio.{it}" for it in ASYNCIO}
    return sorted({*(set(tops) - LIBRARIES), *(names & FORBIDDEN), *loops})


def test_the_code_is_found() -> None:
    assert len(code()) > 40


@pytest.mark.parametrize("path", code(), ids=lambda path: path.stem)
def test_workflow_code_uses_nothing_that_differs_in_a_replay(path: Path) -> None:
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
def test_non_deterministic_code_is_detected(text: str, found: list[str]) -> None:
    assert broken(text) == found
