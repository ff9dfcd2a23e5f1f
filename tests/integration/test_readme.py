"""The README's example, pasted into a shell as it is."""

from pathlib import Path

import pytest

from devstack.console import Console, eventually
from devstack.stack import Stack
from tests.documents import ROOT, block
from tests.integration.shell import Shell
from workflows.workspace.requests import OutcomeKind

pytestmark = pytest.mark.anyio


async def test_the_example_launches_one_box_for_three_requests(
    stack: Stack, console: Console, workspace: str, tmp_path: Path
) -> None:
    example = block(ROOT / "README.md", "sh", "request_recreate").replace("ws-1", workspace)
    await Shell(stack, tmp_path).run(example)
    first, second, late = await eventually(
        lambda: console.requests(workspace), lambda requests: len(requests) == 3
    )
    assert (first.outcome, late.outcome) == (OutcomeKind.ACCEPTED, OutcomeKind.STALE)
    # On a very slow machine the box may be online before the second request arrives.
    assert second.outcome in (OutcomeKind.JOINED, OutcomeKind.STALE)
    assert console.aws.counts(workspace).launches == 2
