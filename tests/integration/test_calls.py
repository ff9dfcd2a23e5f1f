"""Every AWS call that the other integration tests made is in the IAM policy.

Runs after all others of this folder (see `conftest`).
"""

import pytest

from devstack.console import Console
from tests.deploy.policy import allows
from workflows.workspace.enums import Phase

pytestmark = pytest.mark.anyio


async def test_every_call_that_was_made_is_allowed_by_the_policy(console: Console, workspace: str) -> None:
    await console.start(workspace)
    await console.until_phase(workspace, Phase.ONLINE)
    seen = console.aws.calls()
    assert {"ec2:RunInstances", "ec2:DescribeInstances", "route53:ChangeResourceRecordSets"} <= set(seen)
    assert [action for action in seen if not allows(action)] == []
