"""The cleanup after a test deletes its workspaces."""

import pytest

from devstack.console import Console, eventually
from devstack.stack import Stack
from tests.integration.conftest import delete_all_but
from workflows.workspace.enums import CanaryPolicy, Phase
from workflows.workspace.messages import WorkspaceSpec

pytestmark = pytest.mark.anyio


async def test_what_was_made_is_deleted_but_for_the_lasting_one_whatever_else_was_ended(
    stack: Stack, console: Console, workspace: str, lasting: str
) -> None:
    ended = f"a-{workspace}"  # sorts before the other
    for name in (ended, workspace):
        await console.start(name, WorkspaceSpec(canary=CanaryPolicy.OFF))
        await console.until_phase(name, Phase.ONLINE)
    if not await console.rows("SELECT 1 FROM workspaces WHERE workspace_id = %s", lasting):
        await console.start(lasting)
    await console.until_phase(lasting, Phase.ONLINE)
    await console.workflow(ended).terminate()
    await delete_all_but(lasting, stack)
    await eventually(lambda: console.record(workspace), lambda it: it["phase"] == "deleted")
    intents = {
        row["workspace_id"]: row["intent"]
        for row in await console.rows("SELECT workspace_id, intent FROM workspaces")
    }
    assert (intents[lasting], intents[ended]) == ("run", "run")
    await console.start(ended)
