"""Faults affect the requests that they match, and no others."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from botocore.exceptions import ClientError, ConnectionClosedError

from devstack.aws.client import AwsEndpoint, EndpointRefused
from devstack.processes import Child
from tests.devstack.cloud import (
    PATIENCE_SECONDS,
    Clients,
    change_name,
    code_of,
    eventually,
    launch,
    listed,
    wait_for_endpoint,
)


@pytest.mark.parametrize(
    ("code", "status"),
    [("RequestLimitExceeded", 503), ("InsufficientInstanceCapacity", 500), ("UnauthorizedOperation", 403)],
)
def test_an_injected_error_has_its_code_and_no_effect(
    endpoint: AwsEndpoint, clients: Clients, code: str, status: int
) -> None:
    fault = endpoint.inject("RunInstances", "error", code=code, message="so it is", status=status)
    with pytest.raises(ClientError, match="so it is") as raised:
        launch(clients, "refused", f"refused-{code}")
    assert code_of(raised.value) == code
    assert raised.value.response["ResponseMetadata"]["HTTPStatusCode"] == status
    assert endpoint.fault(fault).used == 1
    assert listed(clients, "refused") == []
    assert endpoint.journal(workspace="refused")[-1].code == code


def test_a_late_list_does_not_know_new_instances_yet(endpoint: AwsEndpoint, clients: Clients) -> None:
    instance_id = launch(clients, "late", "late-1")["InstanceId"]
    endpoint.inject("DescribeInstances", "late_list", seconds=3600, times=None)
    assert listed(clients, "late") == []
    with pytest.raises(ClientError) as raised:
        clients.ec2.describe_instances(InstanceIds=[instance_id])
    assert code_of(raised.value) == "InvalidInstanceID.NotFound"
    endpoint.clear()
    endpoint.inject("DescribeInstances", "late_list", seconds=0.1, times=None)
    eventually(lambda: [one["InstanceId"] for one in listed(clients, "late")] == [instance_id])


def test_an_instance_that_is_slow_to_change_gets_to_its_next_state_later(
    endpoint: AwsEndpoint, clients: Clients
) -> None:
    slow = endpoint.inject("RunInstances", "slow_change", seconds=3600, workspace="slow")
    launch(clients, "slow", "slow-1")
    launch(clients, "swift", "swift-1")
    eventually(lambda: listed(clients, "swift", "running") != [])
    assert endpoint.fault(slow).used == 1
    [instance] = listed(clients, "slow")
    assert instance["State"]["Name"] == "pending"
    assert listed(clients, "slow", "pending") == [instance]
    assert listed(clients, "slow", "running") == []
    clients.ec2.terminate_instances(InstanceIds=[instance["InstanceId"]])
    eventually(lambda: listed(clients, "slow", "terminated") != [])


def test_a_delayed_request_has_no_effect_yet_and_delays_no_other_one(
    own_endpoint: tuple[Child, int], connect: Callable[[str], Clients]
) -> None:
    process, port = own_endpoint
    process.start()
    url = wait_for_endpoint(process, port)
    clients = connect(url)
    with AwsEndpoint(url) as endpoint, ThreadPoolExecutor(1) as pool:
        fault = endpoint.inject("RunInstances", "delay", seconds=3600, workspace="delayed")
        answer = pool.submit(launch, clients, "delayed", "delayed-1")
        try:
            endpoint.wait_until_used(fault, seconds=PATIENCE_SECONDS)
            assert listed(clients, "delayed") == []
            launch(clients, "prompt", "prompt-1")
            assert not answer.done()
        finally:
            process.kill()  # nothing else would end the delay
        with pytest.raises(ConnectionClosedError):
            answer.result(timeout=PATIENCE_SECONDS)


def test_a_fault_of_one_workspace_leaves_the_others_alone(endpoint: AwsEndpoint, clients: Clients) -> None:
    instance_id = launch(clients, "theirs", "theirs-1")["InstanceId"]
    for action in ("RunInstances", "TerminateInstances", "DescribeInstances", "ChangeResourceRecordSets"):
        endpoint.inject(action, "error", workspace="theirs", times=None)
    launch(clients, "ours", "ours-1")
    assert len(listed(clients, "ours")) == 1
    with pytest.raises(ClientError):
        listed(clients, "theirs")
    with pytest.raises(ClientError):
        clients.ec2.terminate_instances(InstanceIds=[instance_id])
    zone = endpoint.info().hosted_zone_id
    with pytest.raises(ClientError):
        change_name(clients, zone, ("CREATE", "theirs.boxes.internal", "127.64.0.1"))


def test_a_fault_that_makes_no_sense_is_refused(endpoint: AwsEndpoint) -> None:
    with pytest.raises(EndpointRefused, match="400"):
        endpoint.inject("RunInstances", "explode")
    with pytest.raises(EndpointRefused, match="404"):
        endpoint.release("fault-0")
