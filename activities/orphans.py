"""The orphan sweep's looks and its hand: what carries our tags and no generation claims.

A look lists, judges, reports; it ends nothing. Ending asks the record again. What a list does not show leads
to nothing, and a list that fails fails the look.
"""

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

import structlog
from botocore.exceptions import ClientError
from temporalio import activity

from activities import aws_codes, dns_records, failures, inventory, metrics
from activities.aws import Aws
from activities.dns import Zone
from activities.dns_records import Claim as NameClaim
from activities.execution import execution
from activities.inventory import Instance, InstanceState
from activities.sweep_ports import EndOrphans, FindOrphans, OrphanSeen, OrphansFound
from activities.termination import terminate
from store import generations, looks, orphans
from store.pool import Connection, Pool, connection
from workflows.facts import StraysEnded
from workflows.orphans import Found, Judged, OrphanKind, OrphanPolicy, Pass, Standing, judge, standing

if TYPE_CHECKING:
    from mypy_boto3_route53 import Route53Client
    from mypy_boto3_route53.type_defs import ResourceRecordSetOutputTypeDef

SHOWN = 100
"""Orphans in one result, at least as many as a pass may act on; all of them are in the database."""

LARGEST = 2**31 - 1
"""A tag may hold any number; the record's are integers."""

_ALIVE = (InstanceState.PENDING, InstanceState.RUNNING)

_ENDING = (InstanceState.SHUTTING_DOWN, InstanceState.TERMINATED)

log = structlog.get_logger()


class Orphans:
    """Needs EC2, Route 53 and PostgreSQL."""

    def __init__(self, *, aws: Aws, pool: Pool, owner: str, zone: Zone, policy: OrphanPolicy) -> None:
        self._aws = aws
        self._pool = pool
        self._owner = owner
        self._zone = zone
        self._policy = policy

    @activity.defn(name="find_orphan_instances")
    async def find_orphan_instances(self, request: FindOrphans) -> OrphansFound:
        """List all instances with our owner tag, judge them in one transaction, report to the workflows."""
        async with execution(None):
            listed = await self._aws.call(inventory.by_owner, self._aws.ec2, owner=self._owner)
            alive = Counter(each.workspace_id or "" for each in listed if each.state in _ALIVE)
            async with connection(self._pool) as conn:
                await looks.note_inventory(conn, alive)
            return await self._judged(request, [found_instance(instance) for instance in listed])

    @activity.defn(name="find_orphan_names")
    async def find_orphan_names(self, request: FindOrphans) -> OrphansFound:
        """List the names of the zone that carry our claim, and judge them in one transaction."""
        async with execution(None):
            listed = await self._aws.call(_claims_in, self._aws.route53, self._zone.zone_id)
            found = [found_name(host, claim, zone=self._zone) for host, claim in listed]
            return await self._judged(request, [one for one in found if one.owner == self._owner])

    async def _judged(self, request: FindOrphans, listed: Sequence[Found]) -> OrphansFound:
        names = [one.name for one in listed]
        workspaces = sorted({one.workspace_id for one in listed if one.workspace_id is not None})
        async with connection(self._pool) as conn, conn.transaction():
            look = Pass(
                pass_id=request.pass_id,
                owner=self._owner,
                at=await orphans.begin(conn),
                policy=self._policy,
                used=request.used,
            )
            claims = await orphans.claims(conn, workspaces=workspaces, instances=names)
            judged = judge(listed, claims, await orphans.sightings(conn, names), look)
            await orphans.remember(conn, judged)
            if not self._policy.dry_run:
                await orphans.report(conn, judged)
        await self._tell(judged)
        return _result(judged, dry_run=self._policy.dry_run)

    async def _tell(self, judged: Sequence[Judged]) -> None:
        for one in judged:
            if one.verdict.shown:
                await log.ainfo(
                    "orphan.seen",
                    kind=one.found.kind,
                    name=one.found.name,
                    workspace=one.found.workspace_id,
                    generation=one.found.generation,
                    verdict=one.verdict,
                    dry_run=self._policy.dry_run,
                )

    @activity.defn(name="end_orphans")
    async def end_orphans(self, request: EndOrphans) -> StraysEnded:
        """Terminate those that are still there, ours, unprotected, and claimed by nobody."""
        async with execution(request.workspace_id, request.generation):
            listed = await self._aws.call(inventory.by_ids, self._aws.ec2, request.instances)
            # The check and its mark are one transaction that holds the workspace's row. What it finds
            # unclaimed stays so: numbers of launches only grow, and only the newest one adopts.
            async with connection(self._pool) as conn, conn.transaction():
                await generations.lock(conn, request.workspace_id)
                doomed, left = await self._unclaimed(request, listed, conn)
                await orphans.mark_ended(conn, [instance.instance_id for instance in doomed])
            terminated = []
            for instance in doomed:
                try:
                    await terminate(self._aws, [instance])
                except ClientError as error:
                    if not aws_codes.is_protected(aws_codes.code_of(error)):
                        raise
                    left[instance.instance_id] = "EC2's termination protection is on"
                else:
                    terminated.append(instance.instance_id)
                    metrics.ORPHANS_ENDED.inc()
                    await log.awarning("orphan.terminated", instance=instance.instance_id)
            for instance_id, why in left.items():
                await log.ainfo("orphan.left", instance=instance_id, why=why)
            return StraysEnded(
                instances=request.instances,
                terminated=tuple(terminated),
                left=tuple(f"{instance_id}: {why}" for instance_id, why in left.items()),
            )

    async def _unclaimed(
        self, request: EndOrphans, listed: Sequence[Instance], conn: Connection
    ) -> tuple[list[Instance], dict[str, str]]:
        """Those to be terminated, and why others are not."""
        claims = await orphans.claims(
            conn, workspaces=[request.workspace_id], instances=list(request.instances)
        )
        claim = claims.workspaces.get(request.workspace_id)
        if request.generation is not None and claim is not None and claim.generation > request.generation:
            raise failures.superseded(request.generation)
        whose = (
            {Standing.STRAY}
            if request.generation is not None
            else {Standing.DELETED} | ({Standing.UNKNOWN} if not claims.empty else set())
        )
        doomed: list[Instance] = []
        left: dict[str, str] = {}
        for instance in listed:
            found = found_instance(instance)
            if found.ending:
                left[instance.instance_id] = f"it is {instance.state}"
            elif found.owner != self._owner or found.workspace_id != request.workspace_id:
                left[instance.instance_id] = "its tags name another owner or workspace"
            elif found.protected:
                left[instance.instance_id] = f"it has the tag {inventory.PROTECT_TAG}"
            elif standing(found, claims) not in whose:
                left[instance.instance_id] = f"it is {standing(found, claims)}"
            else:
                doomed.append(instance)
        return doomed, left


def found_instance(instance: Instance) -> Found:
    """An instance as the rules see it."""
    return Found(
        kind=OrphanKind.INSTANCE,
        name=instance.instance_id,
        owner=instance.owner,
        workspace_id=instance.workspace_id,
        generation=min(instance.generation, LARGEST),
        attempt=min(instance.attempt, LARGEST),
        since=instance.launched_at,
        ending=instance.state in _ENDING,
        protected=instance.protected,
    )


def found_name(host: str, claim: NameClaim, *, zone: Zone) -> Found:
    """A DNS name as the rules see it; of no workspace if it is not the name that we would give it."""
    ours = dns_records.same_name(host, zone.name_of(claim.workspace_id))
    return Found(
        kind=OrphanKind.NAME,
        name=host,
        owner=claim.owner,
        workspace_id=claim.workspace_id if ours else None,
        generation=min(claim.generation, LARGEST),
        attempt=min(claim.attempt, LARGEST),
    )


def _claims_in(route53: "Route53Client", zone_id: str) -> list[tuple[str, NameClaim]]:
    pages = route53.get_paginator("list_resource_record_sets").paginate(HostedZoneId=zone_id)
    return [
        (host, claim)
        for page in pages
        for record in page["ResourceRecordSets"]
        if (host := dns_records.host_of(record["Name"])) is not None
        and (claim := _claim_of(record)) is not None
    ]


def _claim_of(record: "ResourceRecordSetOutputTypeDef") -> NameClaim | None:
    values = [value["Value"] for value in record.get("ResourceRecords", [])]
    return NameClaim.parse(values[0]) if record["Type"] == "TXT" and len(values) == 1 else None


def _result(judged: Sequence[Judged], *, dry_run: bool) -> OrphansFound:
    shown = sorted((one for one in judged if one.verdict.shown), key=lambda one: not one.verdict.acts)
    return OrphansFound(
        looked_at=len(judged),
        verdicts=dict(Counter(one.verdict for one in judged)),
        orphans=tuple(
            OrphanSeen(
                kind=one.found.kind,
                name=one.found.name,
                workspace_id=one.found.workspace_id or "",
                generation=one.found.generation,
                attempt=one.found.attempt,
                verdict=one.verdict,
                times=one.sighting.times if one.sighting is not None else 0,
            )
            for one in shown[:SHOWN]
        ),
        dry_run=dry_run,
    )
