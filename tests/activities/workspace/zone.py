"""The hosted zone of the tests, read and written directly."""

from typing import Literal

from tests.activities.world import World


async def change(
    world: World,
    action: Literal["CREATE", "DELETE", "UPSERT"],
    name: str,
    kind: Literal["A", "TXT"],
    value: str,
) -> None:
    await world.aws.call(
        world.aws.route53.change_resource_record_sets,
        HostedZoneId=world.config.zone.zone_id,
        ChangeBatch={
            "Changes": [
                {
                    "Action": action,
                    "ResourceRecordSet": {
                        "Name": name,
                        "Type": kind,
                        "TTL": 30,
                        "ResourceRecords": [{"Value": value}],
                    },
                }
            ]
        },
    )


async def names_in_zone(world: World) -> set[str]:
    pages = world.aws.route53.get_paginator("list_resource_record_sets")
    listed = await world.aws.call(
        lambda: list(pages.paginate(HostedZoneId=world.config.zone.zone_id)),
    )
    return {record["Name"].rstrip(".") for page in listed for record in page["ResourceRecordSets"]}
