"""Route 53's change batches are atomic; invalid changes are refused."""

import pytest
from botocore.exceptions import ClientError

from devstack.aws.client import AwsEndpoint
from tests.devstack.cloud import Clients, addresses, change_name, code_of


def test_deleting_the_old_and_creating_the_new_record_is_one_change(
    endpoint: AwsEndpoint, clients: Clients
) -> None:
    zone = endpoint.info().hosted_zone_id
    change_name(clients, zone, ("CREATE", "swap.boxes.internal", "127.64.0.1"))
    change_name(
        clients,
        zone,
        ("DELETE", "swap.boxes.internal", "127.64.0.1"),
        ("CREATE", "Swap.boxes.internal.", "127.64.0.2"),
    )
    assert addresses(clients, zone)["swap.boxes.internal."] == ["127.64.0.2"]
    assert endpoint.counts("swap").dns_changes == 2


def test_a_record_created_again_after_its_end_is_welcome(endpoint: AwsEndpoint, clients: Clients) -> None:
    zone = endpoint.info().hosted_zone_id
    change_name(clients, zone, ("CREATE", "again.boxes.internal", "127.64.0.1"))
    change_name(clients, zone, ("DELETE", "again.boxes.internal", "127.64.0.1"))
    change_name(clients, zone, ("CREATE", "again.boxes.internal", "127.64.0.1"))
    change_name(clients, zone, ("UPSERT", "again.boxes.internal", "127.64.0.3"))
    assert addresses(clients, zone)["again.boxes.internal."] == ["127.64.0.3"]


@pytest.mark.parametrize(
    ("name", "address", "ttl", "says"),
    [
        ("old.boxes.internal", "127.64.0.9", 60, "do not match"),
        ("old.boxes.internal", "127.64.0.1", 61, "do not match"),
        ("missing.boxes.internal", "127.64.0.1", 60, "not found"),
    ],
)
def test_a_delete_that_does_not_match_exactly_changes_nothing_at_all(
    endpoint: AwsEndpoint, clients: Clients, name: str, address: str, ttl: int, says: str
) -> None:
    zone = endpoint.info().hosted_zone_id
    change_name(clients, zone, ("UPSERT", "old.boxes.internal", "127.64.0.1"))
    with pytest.raises(ClientError, match=says) as raised:
        change_name(
            clients, zone, ("CREATE", "new.boxes.internal", "127.64.0.2"), ("DELETE", name, address), ttl=ttl
        )
    assert code_of(raised.value) == "InvalidChangeBatch"
    found = addresses(clients, zone)
    assert found["old.boxes.internal."] == ["127.64.0.1"]
    assert "new.boxes.internal." not in found


def test_creating_an_existing_record_is_refused(endpoint: AwsEndpoint, clients: Clients) -> None:
    zone = endpoint.info().hosted_zone_id
    change_name(clients, zone, ("CREATE", "twice.boxes.internal", "127.64.0.1"))
    with pytest.raises(ClientError, match="already exists") as raised:
        change_name(clients, zone, ("CREATE", "twice.boxes.internal", "127.64.0.2"))
    assert code_of(raised.value) == "InvalidChangeBatch"
    entry = endpoint.journal(workspace="twice")[-1]
    assert (entry.outcome, entry.code) == ("refused", "InvalidChangeBatch")
    assert endpoint.counts("twice").dns_changes == 1


@pytest.mark.parametrize(
    ("name", "address", "code"),
    [
        ("ws.elsewhere.example", "127.64.0.1", "InvalidChangeBatch"),
        ("ws.boxes.internal", "not-an-address", "InvalidChangeBatch"),
    ],
)
def test_names_of_other_zones_and_wrong_addresses_are_refused(
    endpoint: AwsEndpoint, clients: Clients, name: str, address: str, code: str
) -> None:
    with pytest.raises(ClientError) as raised:
        change_name(clients, endpoint.info().hosted_zone_id, ("CREATE", name, address))
    assert code_of(raised.value) == code


def test_an_unknown_zone_is_refused(clients: Clients) -> None:
    with pytest.raises(ClientError) as raised:
        change_name(clients, "Z0000000000000", ("CREATE", "ws.boxes.internal", "127.64.0.1"))
    assert code_of(raised.value) == "NoSuchHostedZone"
