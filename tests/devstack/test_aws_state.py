"""The endpoint's saved state outlives its process."""

from collections.abc import Callable

from devstack.aws.client import AwsEndpoint
from devstack.processes import Child
from tests.devstack.cloud import (
    Clients,
    addresses,
    change_name,
    eventually,
    launch,
    listed,
    wait_for_endpoint,
)


def test_instances_tokens_records_and_journal_outlive_a_sigkill(
    own_endpoint: tuple[Child, int], connect: Callable[[str], Clients]
) -> None:
    process, port = own_endpoint
    process.start()
    url = wait_for_endpoint(process, port)
    with AwsEndpoint(url) as endpoint:
        clients = connect(url)
        zone = endpoint.info().hosted_zone_id
        instance = launch(clients, "kept", "kept-1")
        change_name(clients, zone, ("CREATE", "kept.boxes.internal", instance["PrivateIpAddress"]))
        process.kill()

        process.start()
        wait_for_endpoint(process, port)
        assert endpoint.info().hosted_zone_id == zone
        assert launch(clients, "kept", "kept-1")["InstanceId"] == instance["InstanceId"]
        assert addresses(clients, zone)["kept.boxes.internal."] == [instance["PrivateIpAddress"]]
        eventually(lambda: bool(listed(clients, "kept", "running")))
        clients.ec2.terminate_instances(InstanceIds=[instance["InstanceId"]])
        eventually(lambda: bool(listed(clients, "kept", "terminated")))
        counts = endpoint.counts("kept")
        assert (counts.launches, counts.terminations, counts.max_alive_at_once) == (1, 1, 1)
