"""A dry run returns EC2's response and changes nothing but a count."""

from collections.abc import Callable

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from devstack.aws.client import AwsEndpoint
from tests.devstack.cloud import IMAGE, Clients, code_of, launch, listed


def refusal(call: Callable[[], object]) -> tuple[str, int]:
    with pytest.raises(ClientError) as raised:
        call()
    return code_of(raised.value), raised.value.response["ResponseMetadata"]["HTTPStatusCode"]


def try_launch(clients: Clients, **changed: object) -> Callable[[], object]:
    request = {"ImageId": IMAGE, "InstanceType": "t3.micro", "MinCount": 1, "MaxCount": 1, **changed}
    return lambda: clients.ec2.run_instances(**request, DryRun=True)  # type: ignore[arg-type]  # wrong on purpose, too


def test_a_dry_run_that_would_succeed_is_refused_with_412_and_does_nothing(
    endpoint: AwsEndpoint, clients: Clients
) -> None:
    known = {one.instance_id for one in endpoint.instances()}
    seen = len(endpoint.journal())
    assert refusal(try_launch(clients)) == ("DryRunOperation", 412)
    # Instances of other tests may still be in transition.
    assert [it for it in endpoint.journal(since=seen) if not known.issuperset(it.instance_ids or [""])] == []
    assert {one.instance_id for one in endpoint.instances()} == known


@pytest.mark.parametrize(
    ("changed", "code"),
    [
        ({"ImageId": "ami-00000000"}, "InvalidAMIID.NotFound"),
        ({"InstanceType": "t3.smal"}, "InvalidParameterValue"),
        ({"SubnetId": "subnet-00000000"}, "InvalidSubnetID.NotFound"),
        ({"SecurityGroupIds": ["sg-00000000"]}, "InvalidGroup.NotFound"),
    ],
)
def test_a_dry_run_says_what_is_wrong_with_the_launch(
    clients: Clients, changed: dict[str, object], code: str
) -> None:
    assert refusal(try_launch(clients, **changed)) == (code, 400)


def test_a_dry_run_of_a_termination_terminates_nothing(clients: Clients) -> None:
    instance_id = launch(clients, "dry", "dry-1")["InstanceId"]
    said = refusal(lambda: clients.ec2.terminate_instances(InstanceIds=[instance_id], DryRun=True))
    assert said == ("DryRunOperation", 412)
    assert len(listed(clients, "dry", "pending", "running")) == 1


def test_a_denied_action_is_denied_to_a_dry_run_too(endpoint: AwsEndpoint, clients: Clients) -> None:
    endpoint.inject("RunInstances", "error", code="UnauthorizedOperation", status=403)
    assert refusal(try_launch(clients)) == ("UnauthorizedOperation", 403)


def test_only_calls_of_production_code_are_counted_by_action_and_workspace(
    endpoint: AwsEndpoint, endpoint_url: str, clients: Clients
) -> None:
    ours = boto3.client(
        "ec2",
        endpoint_url=endpoint_url,
        config=Config(region_name="us-east-1", user_agent_extra="onebox"),
        aws_access_key_id="testing",
        aws_secret_access_key="testing",
    )
    instance_id = launch(clients, "counted", "counted-1")["InstanceId"]
    listed(clients, "counted")
    ours.describe_instances(Filters=[{"Name": "tag:onebox:workspace", "Values": ["counted"]}])
    ours.describe_instances(Filters=[{"Name": "instance-id", "Values": [instance_id]}])
    ours.terminate_instances(InstanceIds=[instance_id])
    ours.close()
    assert endpoint.calls("counted") == {"ec2:DescribeInstances": 2, "ec2:TerminateInstances": 1}
