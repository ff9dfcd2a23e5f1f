"""Launching the box of a generation, once, however often it is asked and whatever answers are lost.

It looks for its own earlier work before doing more: on the record, under the tags, behind the ClientToken.
It never terminates anything.
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
from activities.aws.client import Aws
from activities.aws.instances import Instance
from activities.shared import application_errors
from activities.shared.activity_context import activity_context, shield_until_done
from activities.user_data.render import InvalidUserData, fill_secret, render_template
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
    """Needs EC2, PostgreSQL, and the server's keys for the bootstrap secret."""

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
        """Adopt by tag, else RunInstances with the durable ClientToken and the frozen request."""
        async with activity_context(request.workspace_id, request.generation):
            pin = await self._zone_restriction(request)
            async with connection(self._pool) as conn, conn.transaction():
                opened, frozen = await self._prepare(conn, request, pin)
            known = _recorded_result(opened, frozen)
            if known is not None:
                return known
            listed = await self._listed(request.workspace_id)
            mine = instances.of_launch(listed, generation=request.generation, attempt=request.attempt)
            orphan_instances = await self._orphan_instances(frozen, listed, mine)
            if orphan_instances:
                await log.ainfo(
                    "launch.orphan_instances", attempt=request.attempt, instances=orphan_instances
                )
                return LaunchResult(orphan_instances=orphan_instances)
            if mine is not None:
                await log.ainfo("instance.adopted", instance=mine.instance_id, attempt=request.attempt)
                return await shield_until_done(self._record(frozen, mine, adopted=True))
            return await shield_until_done(self._run(request, pin))

    async def _zone_restriction(self, request: Launch) -> "_ZoneRestriction":
        """What the zone of the data volume makes of the spec: only its subnets are offered."""
        async with connection(self._pool) as conn:
            volume = await volumes.read(conn, request.workspace_id)
            opened = await generations.current(conn, request.workspace_id, request.generation)
        if volume is None or opened is None:
            return _any_zone
        zone, subnets = volume.zone, box_spec.load(opened.spec).subnet_ids
        zones = await self._aws.call(ebs.zones_of, self._aws.ec2, subnets) if subnets else {}
        return lambda spec: box_spec.restricted_to_zone(spec, zone=zone, zones=zones)

    async def _prepare(
        self, conn: Connection, request: Launch, pin: "_ZoneRestriction"
    ) -> tuple[CurrentGeneration, PreparedLaunch]:
        """The launch request as it was first made, while the generation is held open."""
        opened = await generations.lock_current(conn, request.workspace_id, request.generation)
        if opened is None:
            raise application_errors.superseded(request.generation)
        newest = await launches.newest_attempt(conn, request.workspace_id, request.generation)
        if newest > request.attempt:
            raise application_errors.superseded(request.generation, by=f"attempt {newest} took over")
        try:
            spec = pin(box_spec.load(opened.spec))
        except NoSubnetInZone as error:
            raise application_errors.non_retryable(
                "no_subnet_in_zone",
                str(error),
                hint="Add a subnet of that zone to BOX_SUBNET_IDS or the spec's subnet_ids, then request a "
                "recreate.",
            ) from None
        opened = replace(opened, spec=box_spec.dump(spec))
        frozen = await launches.prepare(
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
        return opened, frozen

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
        self, frozen: PreparedLaunch, listed: list[Instance], mine: Instance | None
    ) -> tuple[str, ...]:
        """Whatever else may be alive, by EC2's word or by the record's: the list alone may be late."""
        async with connection(self._pool) as conn:
            unsettled = await launches.list_unterminated(conn, frozen.workspace_id)
            dead = await launches.declared_dead(conn, frozen.workspace_id)
        recorded = {launch.key for launch in unsettled if launch.number != frozen.number}
        seen = {
            instance.instance_id for instance in listed if not instance.terminated and instance is not mine
        }
        return tuple(sorted(recorded | seen - dead))

    async def _run(self, request: Launch, pin: "_ZoneRestriction") -> LaunchResult:
        # The mark and the generation's row are one transaction: either a newer generation is opened first
        # and this call doesn't happen, or its fence sees the mark and waits for what comes of the call.
        async with connection(self._pool) as conn, conn.transaction():
            opened, frozen = await self._prepare(conn, request, pin)
            known = _recorded_result(opened, frozen)
            if known is not None:
                return known
            full = await self._skip_if_unavailable(conn, opened, frozen)
            if full is not None:
                return full
            user_data = self._user_data_with_secret(frozen, opened)
            mark = await launches.mark_requested(conn, frozen)
        try:
            launched = await self._aws.call(_run_instances, self._aws.ec2, frozen, user_data)
        except ClientError as error:
            return await self._handle_error(opened, frozen, error, mark=mark)
        await log.ainfo("instance.launched", instance=launched.instance_id, attempt=request.attempt)
        return await self._record(frozen, launched, adopted=False)

    async def _skip_if_unavailable(
        self, conn: Connection, opened: CurrentGeneration, frozen: PreparedLaunch
    ) -> LaunchResult | None:
        """The same refusal, if EC2 gave it to somebody a moment ago, and this launch was never sent."""
        if frozen.requested_at is not None:
            return None
        instance_type, subnet_id = _offering(frozen)
        bad = await unavailable_offerings.find_unavailable(
            conn, instance_type=instance_type, subnet_id=subnet_id
        )
        if bad is None:
            return None
        await launches.record_capacity_error(conn, frozen, code=bad.code)
        await log.ainfo("launch.skipped", attempt=frozen.attempt, code=bad.code, until=bad.expires_at)
        where = f"{instance_type} in {subnet_id or 'the default subnets'}"
        message = (
            f"no room for {where}, by an answer of a moment ago; asked again after"
            f" {bad.expires_at:%H:%M:%S} UTC"
        )
        return _out_of_capacity(opened, bad.code, message)

    def _user_data_with_secret(self, frozen: PreparedLaunch, opened: CurrentGeneration) -> str:
        """The user data with the generation's bootstrap secret: the same bytes each time."""
        try:
            secret = self._keys.bootstrap_secret(frozen.workspace_id, frozen.generation, key_id=opened.key_id)
        except KeyError:
            raise application_errors.non_retryable(
                "server_key_missing",
                f"generation {frozen.generation} was opened with key {opened.key_id!r}, which is not there",
                hint="Put the key back into SERVER_KEYS, or request a recreate, which uses the current key.",
            ) from None
        return fill_secret(frozen.user_data, secret)

    async def _handle_error(
        self, opened: CurrentGeneration, frozen: PreparedLaunch, error: ClientError, *, mark: datetime
    ) -> LaunchResult:
        code = errors.code_of(error)
        await log.ainfo("launch.refused", attempt=frozen.attempt, code=code)
        if frozen.requested_at is not None or errors.is_quota(code) or errors.is_already_terminated(code):
            # An earlier call under this token may have launched this very box.
            mine = instances.of_launch(
                await self._listed(frozen.workspace_id), generation=frozen.generation, attempt=frozen.attempt
            )
            if mine is not None:
                await log.ainfo("instance.adopted", instance=mine.instance_id, attempt=frozen.attempt)
                return await self._record(frozen, mine, adopted=True)
        if errors.is_capacity(code) or errors.is_already_terminated(code):
            async with connection(self._pool) as conn, conn.transaction():
                await launches.record_capacity_error(conn, frozen, code=code)
                if errors.is_capacity(code):
                    instance_type, subnet_id = _offering(frozen)
                    await unavailable_offerings.mark_unavailable(
                        conn,
                        instance_type=instance_type,
                        subnet_id=subnet_id,
                        code=code,
                        ttl=self._unavailable_offering_ttl,
                    )
            return _out_of_capacity(opened, code, errors.message_of(error))
        if errors.had_no_effect(error) and frozen.requested_at is None:
            # Nothing was launched under this token, so nothing has to be proven gone before the next one.
            async with connection(self._pool) as conn:
                await launches.unmark_requested(conn, frozen, mark=mark)
        raise error

    async def _listed(self, workspace_id: str) -> list[Instance]:
        return await self._aws.call(
            instances.by_tags, self._aws.ec2, owner=self._owner, workspace_id=workspace_id
        )

    async def _record(self, frozen: PreparedLaunch, instance: Instance, *, adopted: bool) -> LaunchResult:
        async with connection(self._pool) as conn, conn.transaction():
            is_current = await launches.record_instance(
                conn,
                frozen.workspace_id,
                generation=frozen.generation,
                attempt=frozen.attempt,
                instance_id=instance.instance_id,
                private_ip=instance.private_ip,
            )
        if not is_current:
            raise application_errors.superseded(
                frozen.generation, by="its instance is recorded, and will be fenced"
            )
        return LaunchResult(instance_id=instance.instance_id, private_ip=instance.private_ip, adopted=adopted)


_ZoneRestriction = Callable[[ResolvedSpec], ResolvedSpec]
"""Raises `NoSubnetInZone`."""


def _any_zone(spec: ResolvedSpec) -> ResolvedSpec:
    return spec


def client_token(owner: str, launch: Launch) -> str:
    """At most 64 characters. A token lives longer than its instance, so it names generation and attempt."""
    parts = (owner, launch.workspace_id, str(launch.generation), str(launch.attempt))
    return hashlib.sha256("|".join(parts).encode()).hexdigest()


def _offering(frozen: PreparedLaunch) -> tuple[str, str | None]:
    """The type and the subnet or zone that the frozen request asks for."""
    place = frozen.request.get("SubnetId")
    placement = frozen.request.get("Placement")
    if place is None and isinstance(placement, dict):
        place = placement.get("AvailabilityZone")
    return str(frozen.request["InstanceType"]), None if place is None else str(place)


def _recorded_result(opened: CurrentGeneration, frozen: PreparedLaunch) -> LaunchResult | None:
    """What the record already says came of this launch."""
    if frozen.instance_id is not None:
        return LaunchResult(instance_id=frozen.instance_id, private_ip=frozen.private_ip)
    if frozen.capacity_error is not None:
        return _out_of_capacity(opened, frozen.capacity_error, "refused before")
    return None


def _out_of_capacity(opened: CurrentGeneration, code: str, message: str) -> LaunchResult:
    return LaunchResult(
        capacity_code=code, capacity_message=message, offerings=box_spec.load(opened.spec).offerings
    )


def _run_instances(ec2: "EC2Client", frozen: PreparedLaunch, user_data: str) -> Instance:
    # The frozen request was built as parameters of this very call.
    request = cast(
        "RunInstancesRequestTypeDef",
        {**frozen.request, "ClientToken": frozen.client_token, "UserData": user_data},
    )
    return instances.parse(ec2.run_instances(**request)["Instances"][0])
