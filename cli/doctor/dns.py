"""Checks the hosted zone and the permissions on it.

Route 53 has no dry run: the check sends a change that Route 53 must refuse.
"""

import secrets
from typing import TYPE_CHECKING

from cli.doctor.aws_client import AwsClients, AwsError, refused
from cli.doctor.model import Finding, failed, ok, skipped
from workers.settings.worker import WorkerSettings

if TYPE_CHECKING:
    from mypy_boto3_route53.type_defs import ChangeTypeDef

INVALID_BATCH = "InvalidChangeBatch"
"""Route 53 refuses the content, so the permission is there."""


async def findings(clients: AwsClients, settings: WorkerSettings) -> list[Finding]:
    """All checks of the hosted zone."""
    zone_id = settings.dns_zone_id
    response = await clients.call(lambda: clients.route53.get_hosted_zone(Id=zone_id))
    if isinstance(response, AwsError):
        found = _no_zone(zone_id, response)
        if not response.denied:
            return [found, skipped("route53.records", "the zone is not available")]
        name = settings.dns_zone_name
    else:
        name = response["HostedZone"]["Name"].rstrip(".").lower()
        private = bool(response["HostedZone"].get("Config", {}).get("PrivateZone"))
        found = _zone_name(zone_id, name, settings.dns_zone_name, private=private)
    return [found, await _reads(clients, zone_id), await _changes(clients, zone_id, name)]


def _no_zone(zone_id: str, error: AwsError) -> Finding:
    if error.code == "NoSuchHostedZone":
        return failed(
            "route53.zone",
            f"there is no hosted zone {zone_id} in this account",
            "Correct DNS_ZONE_ID: `aws route53 list-hosted-zones` lists them.",
            "DNS_ZONE_ID",
        )
    return refused("route53.zone", "route53:GetHostedZone", error, "DNS_ZONE_ID")


def _zone_name(zone_id: str, name: str, configured: str, *, private: bool) -> Finding:
    if name != configured.rstrip("."):
        return failed(
            "route53.zone",
            f"the zone {zone_id} is {name}, not {configured}",
            f"Set DNS_ZONE_NAME to {name}, or DNS_ZONE_ID to the zone of {configured}.",
            "DNS_ZONE_NAME",
            "DNS_ZONE_ID",
        )
    return ok("route53.zone", f"{name}, {'private' if private else 'public'}")


async def _reads(clients: AwsClients, zone_id: str) -> Finding:
    listed = await clients.call(
        lambda: clients.route53.list_resource_record_sets(HostedZoneId=zone_id, MaxItems="1")
    )
    action = "route53:ListResourceRecordSets"
    if isinstance(listed, AwsError):
        return refused("route53.records", action, listed)
    return ok("route53.records", f"{action} is allowed")


async def _changes(clients: AwsClients, zone_id: str, name: str) -> Finding:
    # Route 53 checks the permission, then refuses to delete a record that does not exist.
    change: ChangeTypeDef = {
        "Action": "DELETE",
        "ResourceRecordSet": {
            "Name": f"_onebox-doctor-{secrets.token_hex(8)}.{name}",
            "Type": "TXT",
            "TTL": 0,
            "ResourceRecords": [{"Value": '"none"'}],
        },
    }
    response = await clients.call(
        lambda: clients.route53.change_resource_record_sets(
            HostedZoneId=zone_id, ChangeBatch={"Changes": [change]}
        )
    )
    action = "route53:ChangeResourceRecordSets"
    if isinstance(response, AwsError) and response.code != INVALID_BATCH:
        return refused("route53.change", action, response)
    return ok("route53.change", f"{action} is allowed")
