"""RunInstances, TerminateInstances and DescribeInstances behave as EC2's do."""

from ipaddress import ip_address, ip_network

import pytest
from botocore.exceptions import ClientError

from devstack.aws.client import AwsEndpoint, EndpointRefused
from tests.devstack.cloud import IMAGE, Clients, code_of, eventually, launch, listed


def test_a_token_is_scoped_by_the_zone_that_was_asked_for(clients: Clients) -> None:
    first = launch(clients, "zonal", "zonal-1", zone="us-east-1a")
    second = launch(clients, "zonal", "zonal-1", zone="us-east-1b")
    assert first["InstanceId"] != second["InstanceId"]


def test_a_token_still_means_its_instance_after_that_was_terminated(clients: Clients) -> None:
    first = launch(clients, "dead", "dead-1")
    clients.ec2.terminate_instances(InstanceIds=[first["InstanceId"]])
    eventually(lambda: bool(listed(clients, "dead", "terminated")))
    again = launch(clients, "dead", "dead-1")
    assert again["InstanceId"] == first["InstanceId"]
    assert again["State"]["Name"] == "terminated"


def test_instances_take_their_time_and_filters_agree_with_their_state(
    endpoint: AwsEndpoint, clients: Clients
) -> None:
    instance = launch(clients, "slow", "slow-1")
    assert instance["State"]["Name"] == "pending"
    eventually(lambda: bool(listed(clients, "slow", "running")))
    answer = clients.ec2.terminate_instances(InstanceIds=[instance["InstanceId"]])["TerminatingInstances"][0]
    assert answer["PreviousState"]["Name"] == "running"
    assert answer["CurrentState"]["Name"] == "shutting-down"
    eventually(lambda: bool(listed(clients, "slow", "terminated")))
    again = clients.ec2.terminate_instances(InstanceIds=[instance["InstanceId"]])["TerminatingInstances"][0]
    assert again["CurrentState"]["Name"] == "terminated"
    states = [e.outcome for e in endpoint.journal(workspace="slow") if e.action == "StateChange"]
    assert states == ["pending", "running", "shutting-down", "terminated"]


def test_filters_agree_with_an_instance_on_its_way_to_its_end(
    endpoint: AwsEndpoint, clients: Clients
) -> None:
    instance_id = launch(clients, "ending", "ending-1")["InstanceId"]
    endpoint.inject("TerminateInstances", "slow_change", seconds=3600, workspace="ending")
    clients.ec2.terminate_instances(InstanceIds=[instance_id])
    assert [one["State"]["Name"] for one in listed(clients, "ending")] == ["shutting-down"]
    assert len(listed(clients, "ending", "shutting-down")) == 1
    assert not listed(clients, "ending", "pending", "running", "terminated")


def test_each_instance_has_a_loopback_address_of_its_own(clients: Clients) -> None:
    one, other = launch(clients, "addresses", "addresses-1"), launch(clients, "addresses", "addresses-2")
    assert one["PrivateIpAddress"] != other["PrivateIpAddress"]
    assert ip_address(one["PrivateIpAddress"]) in ip_network("127.64.0.0/10")
    assert listed(clients, "addresses")[0]["PrivateIpAddress"] == one["PrivateIpAddress"]


def test_an_instance_is_found_by_its_client_token(clients: Clients) -> None:
    instance = launch(clients, "by-token", "by-token-1")

    def found(token: str) -> list[str]:
        answer = clients.ec2.describe_instances(Filters=[{"Name": "client-token", "Values": [token]}])
        return [found["InstanceId"] for item in answer["Reservations"] for found in item["Instances"]]

    assert found("by-token-1") == [instance["InstanceId"]]
    assert found("by-token-2") == []


@pytest.mark.parametrize(
    ("image", "kind", "subnet", "code"),
    [
        ("ami-00000000", "t3.micro", "", "InvalidAMIID.NotFound"),
        (IMAGE, "t99.mega", "", "InvalidParameterValue"),
        (IMAGE, "t3.micro", "subnet-00000000000000000", "InvalidSubnetID.NotFound"),
    ],
)
def test_a_launch_that_ec2_would_refuse_is_refused_and_leaves_nothing(
    endpoint: AwsEndpoint, clients: Clients, image: str, kind: str, subnet: str, code: str
) -> None:
    with pytest.raises(ClientError) as raised:
        clients.ec2.run_instances(
            ImageId=image,
            InstanceType=kind,  # type: ignore[arg-type]
            MinCount=1,
            MaxCount=1,
            **({"SubnetId": subnet} if subnet else {}),  # type: ignore[arg-type]
        )
    assert code_of(raised.value) == code
    entry = [entry for entry in endpoint.journal() if entry.action == "RunInstances"][-1]
    assert (entry.outcome, entry.code, entry.instance_ids) == ("refused", code, ())
    assert all(item["Instances"] for item in clients.ec2.describe_instances()["Reservations"])


def test_the_counts_tell_launches_terminations_and_how_many_were_alive_at_once(
    endpoint: AwsEndpoint, clients: Clients
) -> None:
    ids = [launch(clients, "counted", f"counted-{n}", generation=n)["InstanceId"] for n in (1, 2)]
    launch(clients, "another", "another-1")
    clients.ec2.terminate_instances(InstanceIds=[ids[0]])
    counts = endpoint.counts("counted")
    assert (counts.launches, counts.terminations) == (2, 1)
    assert (counts.alive_now, counts.max_alive_at_once, counts.max_unterminated_at_once) == (1, 2, 2)
    launched = [e for e in endpoint.journal(workspace="counted") if e.outcome == "launched"]
    assert [(e.generation, e.instance_ids) for e in launched] == [(1, (ids[0],)), (2, (ids[1],))]


def test_a_box_that_powers_itself_off_is_terminated(endpoint: AwsEndpoint, clients: Clients) -> None:
    instance = launch(clients, "power-off", "power-off-1")
    eventually(lambda: bool(listed(clients, "power-off", "running")))
    endpoint.shutdown(instance["InstanceId"])
    eventually(lambda: bool(listed(clients, "power-off", "terminated")))
    with pytest.raises(EndpointRefused, match="404"):
        endpoint.shutdown("i-00000000000000000")


def test_user_data_reaches_the_box_and_not_the_journal(endpoint: AwsEndpoint, clients: Clients) -> None:
    script = "#!/bin/sh\necho secret-ä\n"
    instance = launch(clients, "user-data", "user-data-1", user_data=script)
    assert endpoint.user_data(instance["InstanceId"]) == script
    assert "UserData" not in endpoint.journal(workspace="user-data")[-1].parameters
    assert endpoint.instances("user-data")[0].generation == 1
