"""The address of a box: waits until the box runs and points the workspace's DNS name at it.

The name changes by compare-and-swap only, once per launch, and never back to an older launch.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, assert_never

import structlog
from botocore.exceptions import ClientError
from temporalio import activity

from activities.aws import errors
from activities.aws.client import Aws
from activities.shared import application_errors
from activities.shared.activity_context import activity_context
from activities.telemetry import metrics
from activities.workspace import dns_records
from activities.workspace.dns_records import ChangeSet, Claim, HeldByOthers, InSync, NewerHolder
from activities.workspace.fence import PollPolicy
from activities.workspace.wait_running import InstanceEnded, pending_error, wait_until_running
from store.db.pool import Pool, connection
from store.workspace import generations, launches
from workflows.workspace.contract import Address, AddressResult, RemoveAddress

if TYPE_CHECKING:
    from mypy_boto3_route53 import Route53Client
    from mypy_boto3_route53.type_defs import ResourceRecordSetOutputTypeDef

MAX_ATTEMPTS = 4
"""A lost race is retried at once. After four, waiting helps more."""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Zone:
    """The hosted zone of the workspaces' DNS names."""

    zone_id: str
    name: str
    ttl_seconds: int = 30
    """Seconds until resolvers see the address of a recreated box."""

    def name_of(self, workspace_id: str) -> str:
        """The host name of a workspace, without the final dot."""
        return f"{workspace_id}.{self.name.strip('.')}"


class Addresses:
    """Needs EC2, Route 53 and PostgreSQL."""

    def __init__(self, *, aws: Aws, pool: Pool, owner: str, zone: Zone, poll_policy: PollPolicy) -> None:
        self._aws = aws
        self._pool = pool
        self._owner = owner
        self._zone = zone
        self._poll_policy = poll_policy

    @activity.defn(name="address")
    async def address(self, request: Address) -> AddressResult:
        """Wait until the box runs, then send one compare-and-swap change batch unless DNS is in sync."""
        async with activity_context(request.workspace_id, request.generation):
            await self._require_current(request)
            instance = await wait_until_running(
                request, aws=self._aws, pool=self._pool, poll_policy=self._poll_policy
            )
            if isinstance(instance, InstanceEnded):
                return AddressResult(gone=True, detail=instance.detail)
            if instance.private_ip is None:
                raise pending_error(f"{request.instance_id} runs without a private address yet")
            await self._record(request, instance.private_ip)
            name = self._zone.name_of(request.workspace_id)
            await self._upsert(request, name, instance.private_ip)
            async with connection(self._pool) as conn:
                await generations.write_dns_name(
                    conn, request.workspace_id, generation=request.generation, dns_name=name
                )
            return AddressResult(private_ip=instance.private_ip, dns_name=name)

    @activity.defn(name="remove_address")
    async def remove_address(self, request: RemoveAddress) -> None:
        """Delete the DNS name if it exists and belongs to the workspace. With its zone, it is gone."""
        async with activity_context(request.workspace_id):
            async with connection(self._pool) as conn, conn.transaction():
                workspace = await generations.lock(conn, request.workspace_id)
            if workspace is not None and workspace.current:
                raise application_errors.superseded(
                    workspace.generation, by="the workspace has an open generation"
                )
            try:
                await self._remove(request.workspace_id)
            except ClientError as error:
                if errors.code_of(error) != "NoSuchHostedZone":
                    raise
                await log.awarning("dns.no_zone", zone=self._zone.zone_id)
            async with connection(self._pool) as conn:
                await generations.erase_dns_name(conn, request.workspace_id)

    async def _remove(self, workspace_id: str) -> None:
        name = self._zone.name_of(workspace_id)
        any_launch = Claim(owner=self._owner, workspace_id=workspace_id, generation=0, attempt=0)
        rejected = ""
        for _ in range(MAX_ATTEMPTS):
            change = dns_records.remove(
                name, any_launch, found=await self._found(name), addresses=await self._addresses(workspace_id)
            )
            if isinstance(change, ChangeSet):
                if rejected := await self._send(name, change):
                    continue
                metrics.DNS_CHANGES.labels("remove").inc()
            elif isinstance(change, HeldByOthers):
                await log.awarning("dns.not_ours", name=name, detail=change.detail)
            return
        raise _conflict(name, rejected)

    async def _require_current(self, request: Address) -> None:
        async with connection(self._pool) as conn:
            if await generations.current(conn, request.workspace_id, request.generation) is None:
                raise application_errors.superseded(request.generation)

    async def _record(self, request: Address, private_ip: str) -> None:
        async with connection(self._pool) as conn, conn.transaction():
            is_current = await launches.record_instance(
                conn,
                request.workspace_id,
                generation=request.generation,
                attempt=request.attempt,
                instance_id=request.instance_id,
                private_ip=private_ip,
            )
        if not is_current:
            raise application_errors.superseded(request.generation)

    async def _upsert(self, request: Address, name: str, ip: str) -> None:
        claim = Claim(
            owner=self._owner,
            workspace_id=request.workspace_id,
            generation=request.generation,
            attempt=request.attempt,
        )
        rejected = ""
        for _ in range(MAX_ATTEMPTS):
            found = await self._found(name)
            change = dns_records.plan_upsert(
                name,
                claim,
                ip=ip,
                ttl=self._zone.ttl_seconds,
                found=found,
                addresses=await self._addresses(request.workspace_id),
            )
            match change:
                case InSync():
                    await log.ainfo("dns.in_sync", name=name, ip=ip)
                    return
                case NewerHolder(holder=newer):
                    await self._require_current(request)
                    raise application_errors.refused(
                        "dns_ahead_of_record",
                        f"{name} belongs to generation {newer.generation}, which the database does not have",
                        hint="The database may have been restored from a backup. Remove the name's A and TXT "
                        "records: the box then gets its name.",
                    )
                case HeldByOthers(detail=detail):
                    # A recreate would cost a box and change nothing: wait for the name.
                    raise application_errors.refused(
                        "dns_name_taken",
                        detail,
                        hint="Remove these records: the box then gets its name. "
                        "Or choose another workspace ID.",
                    )
                case ChangeSet():
                    # The records were read before this check: if a newer generation writes them now, Route 53
                    # rejects the batch.
                    await self._require_current(request)
                    rejected = await self._send(name, change)
                    if not rejected:
                        metrics.DNS_CHANGES.labels("point").inc()
                        await log.ainfo("dns.changed", name=name, ip=ip)
                        return
                case _ as never:
                    assert_never(never)
        raise _conflict(name, rejected)

    async def _addresses(self, workspace_id: str) -> frozenset[str]:
        async with connection(self._pool) as conn:
            return await launches.addresses(conn, workspace_id)

    async def _found(self, name: str) -> "list[ResourceRecordSetOutputTypeDef]":
        return await self._aws.call(_records_at, self._aws.route53, self._zone.zone_id, name)

    async def _send(self, name: str, swap: ChangeSet) -> str:
        """Send the change batch. Returns why Route 53 rejected it; empty if it did not."""
        try:
            await self._aws.call(_change, self._aws.route53, self._zone.zone_id, swap)
        except ClientError as error:
            if errors.code_of(error) != "InvalidChangeBatch":
                raise
            rejected = errors.message_of(error) or errors.code_of(error)
            await log.ainfo("dns.rejected", name=name, detail=rejected)
            return rejected
        return ""


def _records_at(route53: "Route53Client", zone_id: str, name: str) -> "list[ResourceRecordSetOutputTypeDef]":
    found: list[ResourceRecordSetOutputTypeDef] = []
    for wanted in (name, dns_records.ownership_txt_name(name)):
        # Lists are sorted by name, so the first page contains all records of this name.
        page = route53.list_resource_record_sets(HostedZoneId=zone_id, StartRecordName=wanted, MaxItems="50")
        found += [
            record for record in page["ResourceRecordSets"] if dns_records.same_name(record["Name"], wanted)
        ]
    return found


def _change(route53: "Route53Client", zone_id: str, swap: ChangeSet) -> None:
    route53.change_resource_record_sets(HostedZoneId=zone_id, ChangeBatch={"Changes": list(swap.changes)})


def _conflict(name: str, rejected: str) -> Exception:
    # Route 53 has one code for a lost race and for a change that it does not allow: only its words differ.
    return application_errors.retryable(
        "dns_conflict",
        f"Route 53 rejected {MAX_ATTEMPTS} changes of {name}, the last one with: {rejected}",
        hint="If a record exists already or differs, check what else writes to the zone. Otherwise check that"
        " DNS_ZONE_NAME is the name of the zone. The change is retried automatically.",
    )
