"""Which errors of Temporal the client retries."""

import pytest
from temporalio.service import RPCError, RPCStatusCode

from client import workspaces
from client.workspaces import is_transient, with_retries

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def rpc_error(status: RPCStatusCode, message: str = "") -> RPCError:
    return RPCError(message, status, b"")


@pytest.mark.parametrize(
    ("error", "transient"),
    [
        (rpc_error(RPCStatusCode.RESOURCE_EXHAUSTED), True),
        (rpc_error(RPCStatusCode.UNAVAILABLE), True),
        (rpc_error(RPCStatusCode.NOT_FOUND, "workflow update was aborted by closing workflow"), True),
        (rpc_error(RPCStatusCode.NOT_FOUND, "workflow not found"), False),
        (rpc_error(RPCStatusCode.FAILED_PRECONDITION, "no poller seen for task queue recently"), True),
        (rpc_error(RPCStatusCode.FAILED_PRECONDITION, "another reason"), False),
        (rpc_error(RPCStatusCode.INVALID_ARGUMENT), False),
    ],
)
def test_only_temporary_conditions_are_transient(error: RPCError, transient: bool) -> None:
    assert is_transient(error) is transient


async def test_a_transient_error_is_retried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workspaces, "POLL_SECONDS", 0.0)
    errors = [rpc_error(RPCStatusCode.UNAVAILABLE), rpc_error(RPCStatusCode.CANCELLED)]

    async def call() -> str:
        if errors:
            raise errors.pop()
        return "done"

    assert await with_retries(call) == "done"


@pytest.mark.parametrize("status", [RPCStatusCode.INVALID_ARGUMENT, RPCStatusCode.UNAVAILABLE])
async def test_an_error_is_raised_if_it_is_permanent_or_persists(status: RPCStatusCode) -> None:
    async def call() -> str:
        raise rpc_error(status)

    with pytest.raises(RPCError):
        await with_retries(call, seconds=0.0)
