"""Launches the box of a generation exactly once, whatever is retried and whatever responses are lost.

Before it launches, it looks for the instance of an earlier call: in PostgreSQL, by tags, by the ClientToken.
"""

import hashlib
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, cast

import structlog
from botocore.exceptions import ClientError
from temporalio import activity

from activities.aws import ebs, errors, instances
from activities.aws.client import Aws, shield_until_done
from activities.aws.instances import Instance
from activities.shared import application_errors
from activities.shared.activity_context import activity_context
from activities.user_data.render import InvalidUserData, compress, fill_secret, render_template
from activities.workspace import box_spec
from activities.workspace.box_spec import BoxDefaults, NoSubnetInZone, ResolvedSpec
from store.db.pool import Connection, Pool, connection
from store.registration.credentials import ServerKeys
from store.volume import volumes
from store.workspace import generations, launches, unavailable_offerings
from store.workspace.generations import CurrentGeneration
from store.workspace.launches import Launch as PreparedLaunch
from workflows.workspace.contract import Launch, LaunchResult

if TYPE_CHECKING:
    from mypy_boto3_ec2 import EC2Client
    from mypy_boto3_ec2.type_defs import RunInstancesRequestTypeDef

log = structlog.get_logger()


class Launching:
    """Needs EC2, PostgreSQL, and the server keys, from which the bootstrap secret is derived."""

    def __init__(
        self,
        *,
        aws: Aws,
        pool: Pool,
        keys: ServerKeys,
        owner: str,
        defaults: BoxDefaults,
        unavailable_offering_ttl: timedelta,
    ) -> None:
        self._aws = aws
        self._pool = pool
        self._keys = keys
        self._owner = owner
        self._defaults = defaults
        self._unavailable_offering_ttl = unavailable_offering_ttl

    @activity.defn(name="launch")
    async def launch(self, request: Launch) -> LaunchResult:
        """Adopt the instance with this launch's tags, else call RunInstances with the stored request."""
        async with activity_context(request.workspace_id, request.generation):
            restrict = await self._zone_restriction(request)
            async with connection(self._pool) as conn, conn.transaction():
                opened, prepared = await self._prepare(conn, request, restrict)
            known = _recorded_result(opened, prepared)
            if known is not None:
                return known
            listed = await self._listed(request.workspace_id)
            own = instances.of_launch(listed, generation=request.generation, attempt=request.attempt)
            orphan_instances = await self._orphan_instances(prepared, listed, own)
            if orphan_instances:
                await log.ainfo(
                    "launch.orphan_instances", attempt=request.attempt, instances=orphan_instances
                )
                return LaunchResult(orphan_instances=orphan_instances)
            if own is not None:
                await log.ainfo("instance.adopted", instance=own.instance_id, attempt=request.attempt)
                return await shield_until_done(self._record(prepared, own, adopted=True))
            return await shield_until_done(self._run(request, restrict))

    async def _zone_restriction(self, request: Launch) -> "_ZoneRestriction":
        """Restricts a spec to the zone of the workspace's data volume, if there is one."""
        async with connection(self._pool) as conn:
            volume = await volumes.read(conn, request.workspace_id)
            opened = await generations.current(conn, request.workspace_id, request.generation)
        if volume is None or opened is None:
            return _any_zone
        zone, subnets = volume.zone, box_spec.load(opened.spec).subnet_ids
        zones = await self._aws.call(ebs.zones_of, self._aws.ec2, subnets) if subnets else {}
        return lambda spec: box_spec.restricted_to_zone(spec, zone=zone, zones=zones)

    async def _prepare(
        self, conn: Connection, request: Launch, restrict: "_ZoneRestriction"
    ) -> tuple[CurrentGeneration, PreparedLaunch]:
        """Lock the generation, and store the launch request or read the one stored before."""
        opened = await generations.lock_current(conn, request.workspace_id, request.generation)
        if opened is None:
            raise application_errors.superseded(request.generation)
        newest = await launches.newest_attempt(conn, request.workspace_id, request.generation)
        if newest > request.attempt:
            raise application_errors.superseded(request.generation, by=f"attempt {newest} took over")
        try:
            spec = restrict(box_spec.load(opened.spec))
        except NoSubnetInZone as error:
            # EC2 may list a new subnet late.
            raise application_errors.refused(
                "no_subnet_in_zone",
                str(error),
                hint="Add a subnet of that zone to BOX_SUBNET_IDS or subnet_ids in the spec, then request a "
                "recreate with force.",
            ) from None
        opened = replace(opened, spec=box_spec.dump(spec))
        prepared = await launches.prepare(
            conn,
            request.workspace_id,
            generation=request.generation,
            attempt=request.attempt,
            client_token=client_token(self._owner, request),
            request=box_spec.run_instances_request(
                spec,
                owner=self._owner,
                workspace_id=request.workspace_id,
                generation=request.generation,
                attempt=request.attempt,
            ),
            user_data=self._user_data(request, spec),
        )
        return opened, prepared

    def _user_data(self, request: Launch, spec: ResolvedSpec) -> str:
        defaults = self._defaults
        try:
            return render_template(
                workspace_id=request.workspace_id,
                generation=request.generation,
                register_api_url=defaults.register_api_url,
                runtime_command=defaults.runtime_command,
                runtime_user=defaults.runtime_user,
                runtime_port=spec.runtime_port,
                configs_dir=defaults.configs_dir,
                data_dir=defaults.data_dir if spec.data_volume is not None else "",
            )
        except InvalidUserData as error:
            raise application_errors.non_retryable(
                "invalid_user_data",
                str(error),
                hint="Correct the BOX_RUNTIME settings of the worker, then request a recreate.",
            ) from None

    async def _orphan_instances(
        self, prepared: PreparedLaunch, listed: list[Instance], own: Instance | None
    ) -> tuple[str, ...]:
        """Other instances that may be alive, by EC2's list or by the record: the list alone may be late."""
        async with connection(self._pool) as conn:
            unsettled = await launches.list_unterminated(conn, prepared.workspace_id)
            dead = await launches.declared_dead(conn, prepared.workspace_id)
        recorded = {launch.key for launch in unsettled if launch.number != prepared.number}
        seen = {
            instance.instance_id for instance in listed if not instance.terminated and instance is not own
        }
        return tuple(sorted(recorded | seen - dead))

    async def _run(self, request: Launch, restrict: "_ZoneRestriction") -> LaunchResult:
        # One transaction locks the generation and sets the mark. Either a newer generation is opened first
        # and this call does not happen, or its fence sees the mark and waits for the result of the call.
        async with connection(self._pool) as conn, conn.transaction():
            opened, prepared = await self._prepare(conn, request, restrict)
            known = _recorded_result(opened, prepared)
            if known is not None:
                return known
            skipped = await self._skip_if_unavailable(conn, opened, prepared)
            if skipped is not None:
                return skipped
            user_data = self._user_data_with_secret(prepared, opened)
            mark = await launches.mark_requested(conn, prepared)
        try:
            launched = await self._aws.call(_run_instances, self._aws.ec2, prepared, user_data)
        except ClientError as error:
            return await self._handle_error(opened, prepared, error, mark=mark)
        await log.ainfo("instance.launched", instance=launched.instance_id, attempt=request.attempt)
        return await self._record(prepared, launched, adopted=False)

    async def _skip_if_unavailable(
        self, conn: Connection, opened: CurrentGeneration, prepared: PreparedLaunch
    ) -> LaunchResult | None:
        """A capacity error without a call, if this offering is marked unavailable and was not tried here."""
        if prepared.requested_at is not None:
            return None
        instance_type, subnet_id = _offering(prepared)
        unavailable = await unavailable_offerings.find_unavailable(
            conn, instance_type=instance_type, subnet_id=subnet_id
        )
        if unavailable is None:
            return None
        await launches.record_capacity_error(conn, prepared, code=unavailable.code)
        await log.ainfo(
            "launch.skipped", attempt=prepared.attempt, code=unavailable.code, until=unavailable.expires_at
        )
        where = f"{instance_type} in {subnet_id or 'the default subnets'}"
        message = (
            f"EC2 recently had no capacity for {where}; the next call is possible after"
            f" {unavailable.expires_at:%H:%M:%S} UTC"
        )
        return _out_of_capacity(opened, unavailable.code, message)

    def _user_data_with_secret(self, prepared: PreparedLaunch, opened: CurrentGeneration) -> bytes:
        """The user data with the generation's bootstrap secret. A retry gives the same bytes."""
        try:
            secret = self._keys.bootstrap_secret(
                prepared.workspace_id, prepared.generation, key_id=opened.key_id
            )
        except KeyError:
            raise application_errors.non_retryable(
                "server_key_missing",
                f"server key {opened.key_id!r} of generation {prepared.generation} is not configured",
                hint="Add the key to SERVER_KEYS again, or request a recreate, which uses the current key.",
            ) from None
        return compress(fill_secret(prepared.user_data, secret))

    async def _handle_error(
        self, opened: CurrentGeneration, prepared: PreparedLaunch, error: ClientError, *, mark: datetime
    ) -> LaunchResult:
        code = errors.code_of(error)
        await log.ainfo("launch.refused", attempt=prepared.attempt, code=code)
        if prepared.requested_at is not None or errors.is_quota(code) or errors.is_already_terminated(code):
            # An earlier call with this token may have launched the box.
            own = instances.of_launch(
                await self._listed(prepared.workspace_id),
                generation=prepared.generation,
                attempt=prepared.attempt,
            )
            if own is not None:
                await log.ainfo("instance.adopted", instance=own.instance_id, attempt=prepared.attempt)
                return await self._record(prepared, own, adopted=True)
        if errors.is_capacity(code) or errors.is_already_terminated(code):
            async with connection(self._pool) as conn, conn.transaction():
                await launches.record_capacity_error(conn, prepared, code=code)
                if errors.is_capacity(code):
                    instance_type, subnet_id = _offering(prepared)
                    await unavailable_offerings.mark_unavailable(
                        conn,
                        instance_type=instance_type,
                        subnet_id=subnet_id,
                        code=code,
                        ttl=self._unavailable_offering_ttl,
                    )
            return _out_of_capacity(opened, code, errors.message_of(error))
        if errors.had_no_effect(error) and prepared.requested_at is None:
            # No call with this token had an effect, so the next fence need not wait for an instance of it.
            async with connection(self._pool) as conn:
                await launches.unmark_requested(conn, prepared, mark=mark)
        raise error

    async def _listed(self, workspace_id: str) -> list[Instance]:
        return await self._aws.call(
            instances.by_tags, self._aws.ec2, owner=self._owner, workspace_id=workspace_id
        )

    async def _record(self, prepared: PreparedLaunch, instance: Instance, *, adopted: bool) -> LaunchResult:
        async with connection(self._pool) as conn, conn.transaction():
            is_current = await launches.record_instance(
                conn,
                prepared.workspace_id,
                generation=prepared.generation,
                attempt=prepared.attempt,
                instance_id=instance.instance_id,
                private_ip=instance.private_ip,
            )
        if not is_current:
            raise application_errors.superseded(
                prepared.generation, by="its instance is recorded and will be terminated"
            )
        return LaunchResult(instance_id=instance.instance_id, private_ip=instance.private_ip, adopted=adopted)


_ZoneRestriction = Callable[[ResolvedSpec], ResolvedSpec]
"""Raises `NoSubnetInZone`."""


def _any_zone(spec: ResolvedSpec) -> ResolvedSpec:
    return spec


def client_token(owner: str, launch: Launch) -> str:
    """The ClientToken of an attempt, at most 64 characters. EC2 keeps it longer than the instance."""
    parts = (owner, launch.workspace_id, str(launch.generation), str(launch.attempt))
    return hashlib.sha256("|".join(parts).encode()).hexdigest()


def _offering(prepared: PreparedLaunch) -> tuple[str, str | None]:
    """The instance type and the subnet or zone of the prepared request."""
    place = prepared.request.get("SubnetId")
    placement = prepared.request.get("Placement")
    if place is None and isinstance(placement, dict):
        place = placement.get("AvailabilityZone")
    return str(prepared.request["InstanceType"]), None if place is None else str(place)


def _recorded_result(opened: CurrentGeneration, prepared: PreparedLaunch) -> LaunchResult | None:
    """The result of this launch, if it is recorded already."""
    if prepared.instance_id is not None:
        return LaunchResult(instance_id=prepared.instance_id, private_ip=prepared.private_ip)
    if prepared.capacity_error is not None:
        return _out_of_capacity(opened, prepared.capacity_error, "EC2 had no capacity in an earlier call")
    return None


def _out_of_capacity(opened: CurrentGeneration, code: str, message: str) -> LaunchResult:
    return LaunchResult(
        capacity_code=code, capacity_message=message, offerings=box_spec.load(opened.spec).offerings
    )


def _run_instances(ec2: "EC2Client", prepared: PreparedLaunch, user_data: bytes) -> Instance:
    # `run_instances_request` built these parameters.
    request = cast(
        "RunInstancesRequestTypeDef",
        {**prepared.request, "ClientToken": prepared.client_token, "UserData": user_data},
    )
    return instances.parse(ec2.run_instances(**request)["Instances"][0])
