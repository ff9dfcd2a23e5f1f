"""The orphan sweep: finds instances and DNS names with this control plane's tags that no generation owns.

The find activities list, classify and report; they terminate nothing. `terminate_orphans` checks the record
again before it terminates. Absence from a list is never acted on, and a failed list fails the pass.
"""

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

import structlog
from botocore.exceptions import ClientError
from temporalio import activity

from activities.aws import errors, instances
from activities.aws.client import Aws
from activities.aws.instances import Instance, InstanceState
from activities.aws.termination import terminate
from activities.shared import application_errors
from activities.shared.activity_context import activity_context
from activities.telemetry import metrics
from activities.workspace import dns_records
from activities.workspace.address import Zone
from activities.workspace.dns_records import Claim as NameClaim
from store.db.pool import Connection, Pool, connection
from store.fleet import fleet_snapshot
from store.orphans import orphans
from store.workspace import generations
from workflows.orphans.contract import FindOrphans, OrphanSeen, OrphansFound
from workflows.orphans.rules import (
    ListedResource,
    OrphanDecision,
    OrphanKind,
    OrphanPolicy,
    Ownership,
    SweepPass,
    decide,
    ownership,
)
from workflows.workspace.contract import OrphansTerminated, TerminateOrphans

if TYPE_CHECKING:
    from mypy_boto3_route53 import Route53Client
    from mypy_boto3_route53.type_defs import ResourceRecordSetOutputTypeDef

MAX_REPORTED = 100
"""Orphans in one result, at least as many as a pass may act on. The database has all of them."""

MAX_INT = 2**31 - 1
"""Tags may contain any number; PostgreSQL stores 32-bit integers."""

_ALIVE = (InstanceState.PENDING, InstanceState.RUNNING)

_TERMINATING = (InstanceState.SHUTTING_DOWN, InstanceState.TERMINATED)

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
        """List all instances with the owner tag, classify them, and enqueue events for their workflows."""
        async with activity_context(None):
            listed = await self._aws.call(instances.by_owner, self._aws.ec2, owner=self._owner)
            alive = Counter(each.workspace_id or "" for each in listed if each.state in _ALIVE)
            async with connection(self._pool) as conn:
                await fleet_snapshot.record_inventory(conn, alive)
            return await self._classify(request, [resource_of_instance(instance) for instance in listed])

    @activity.defn(name="find_orphan_names")
    async def find_orphan_names(self, request: FindOrphans) -> OrphansFound:
        """List the names of the zone that this control plane claims, and classify them."""
        async with activity_context(None):
            listed = await self._aws.call(_claims_in, self._aws.route53, self._zone.zone_id)
            found = [resource_of_name(host, claim, zone=self._zone) for host, claim in listed]
            return await self._classify(request, [one for one in found if one.owner == self._owner])

    async def _classify(self, request: FindOrphans, listed: Sequence[ListedResource]) -> OrphansFound:
        names = [one.name for one in listed]
        workspaces = sorted({one.workspace_id for one in listed if one.workspace_id is not None})
        async with connection(self._pool) as conn, conn.transaction():
            sweep_pass = SweepPass(
                pass_id=request.pass_id,
                owner=self._owner,
                at=await orphans.lock_for_pass(conn),
                policy=self._policy,
                used=request.used,
            )
            claims = await orphans.claims(conn, workspaces=workspaces, instances=names)
            decisions = decide(listed, claims, await orphans.sightings(conn, names), sweep_pass)
            await orphans.save_sightings(conn, decisions)
            if not self._policy.dry_run:
                await orphans.enqueue_events(conn, decisions)
        await self._log_orphans(decisions)
        return _result(decisions, dry_run=self._policy.dry_run)

    async def _log_orphans(self, decisions: Sequence[OrphanDecision]) -> None:
        for one in decisions:
            if one.action.shown:
                await log.ainfo(
                    "orphan.found",
                    kind=one.resource.kind,
                    name=one.resource.name,
                    workspace=one.resource.workspace_id,
                    generation=one.resource.generation,
                    action=one.action,
                    dry_run=self._policy.dry_run,
                )

    @activity.defn(name="terminate_orphans")
    async def terminate_orphans(self, request: TerminateOrphans) -> OrphansTerminated:
        """Terminate those instances that still are unprotected orphans with this control plane's tags."""
        async with activity_context(request.workspace_id, request.generation):
            listed = await self._aws.call(instances.by_ids, self._aws.ec2, request.instances)
            # One transaction locks the workspace, checks, and marks. An orphan stays an orphan: launch
            # numbers only grow, and only the newest launch adopts instances.
            async with connection(self._pool) as conn, conn.transaction():
                await generations.lock(conn, request.workspace_id)
                to_terminate, left = await self._select(request, listed, conn)
                await orphans.mark_terminated(conn, [instance.instance_id for instance in to_terminate])
            terminated = []
            for instance in to_terminate:
                try:
                    await terminate(self._aws, [instance])
                except ClientError as error:
                    if not errors.is_protected(errors.code_of(error)):
                        raise
                    left[instance.instance_id] = "termination protection is on"
                else:
                    terminated.append(instance.instance_id)
                    metrics.ORPHANS_TERMINATED.inc()
                    await log.awarning("orphan.terminated", instance=instance.instance_id)
            for instance_id, why in left.items():
                await log.ainfo("orphan.skipped", instance=instance_id, why=why)
            return OrphansTerminated(
                instances=request.instances,
                terminated=tuple(terminated),
                left=tuple(f"{instance_id}: {why}" for instance_id, why in left.items()),
            )

    async def _select(
        self, request: TerminateOrphans, listed: Sequence[Instance], conn: Connection
    ) -> tuple[list[Instance], dict[str, str]]:
        """The instances to terminate, and for the others the reason why not."""
        claims = await orphans.claims(
            conn, workspaces=[request.workspace_id], instances=list(request.instances)
        )
        claim = claims.workspaces.get(request.workspace_id)
        if request.generation is not None and claim is not None and claim.generation > request.generation:
            raise application_errors.superseded(request.generation)
        may_terminate = (
            {Ownership.ORPHAN}
            if request.generation is not None
            else {Ownership.DELETED} | ({Ownership.UNKNOWN} if not claims.empty else set())
        )
        to_terminate: list[Instance] = []
        left: dict[str, str] = {}
        for instance in listed:
            found = resource_of_instance(instance)
            if found.ending:
                left[instance.instance_id] = f"it is {instance.state}"
            elif found.owner != self._owner or found.workspace_id != request.workspace_id:
                left[instance.instance_id] = "its tags name another owner or workspace"
            elif found.protected:
                left[instance.instance_id] = f"it has the tag {instances.PROTECT_TAG}"
            elif ownership(found, claims) not in may_terminate:
                left[instance.instance_id] = f"it is {ownership(found, claims)}"
            else:
                to_terminate.append(instance)
        return to_terminate, left


def resource_of_instance(instance: Instance) -> ListedResource:
    """The instance as input of the rules."""
    return ListedResource(
        kind=OrphanKind.INSTANCE,
        name=instance.instance_id,
        owner=instance.owner,
        workspace_id=instance.workspace_id,
        generation=min(instance.generation, MAX_INT),
        attempt=min(instance.attempt, MAX_INT),
        since=instance.launched_at,
        ending=instance.state in _TERMINATING,
        protected=instance.protected,
    )


def resource_of_name(host: str, claim: NameClaim, *, zone: Zone) -> ListedResource:
    """The DNS name as input of the rules. Without a workspace if the workspace has another name."""
    ours = dns_records.same_name(host, zone.name_of(claim.workspace_id))
    return ListedResource(
        kind=OrphanKind.NAME,
        name=host,
        owner=claim.owner,
        workspace_id=claim.workspace_id if ours else None,
        generation=min(claim.generation, MAX_INT),
        attempt=min(claim.attempt, MAX_INT),
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


def _result(decisions: Sequence[OrphanDecision], *, dry_run: bool) -> OrphansFound:
    shown = sorted((one for one in decisions if one.action.shown), key=lambda one: not one.action.acts)
    return OrphansFound(
        looked_at=len(decisions),
        actions=dict(Counter(one.action for one in decisions)),
        orphans=tuple(
            OrphanSeen(
                kind=one.resource.kind,
                name=one.resource.name,
                workspace_id=one.resource.workspace_id or "",
                generation=one.resource.generation,
                attempt=one.resource.attempt,
                action=one.action,
                times=one.sighting.times if one.sighting is not None else 0,
            )
            for one in shown[:MAX_REPORTED]
        ),
        dry_run=dry_run,
    )
