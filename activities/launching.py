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

from activities import aws_codes, ebs, failures, inventory, specs
from activities.aws import Aws
from activities.execution import execution, to_the_end
from activities.inventory import Instance
from activities.ports import Launch, LaunchResult
from activities.specs import BoxDefaults, NoSubnetInZone, ResolvedSpec
from activities.user_data import InvalidUserData, fill_secret, render_template
from store import generations, launches, offerings, volumes
from store.credentials import ServerKeys
from store.generations import Current
from store.launches import Launch as FrozenLaunch
from store.pool import Connection, Pool, connection

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
        offerings_bad_for: timedelta,
    ) -> None:
        self._aws = aws
        self._pool = pool
        self._keys = keys
        self._owner = owner
        self._defaults = defaults
        self._offerings_bad_for = offerings_bad_for

    @activity.defn(name="launch")
    async def launch(self, request: Launch) -> LaunchResult:
        """Adopt by tag, else RunInstances with the durable ClientToken and the frozen request."""
        async with execution(request.workspace_id, request.generation):
            pin = await self._pinned(request)
            async with connection(self._pool) as conn, conn.transaction():
                opened, frozen = await self._freeze(conn, request, pin)
            known = _known(opened, frozen)
            if known is not None:
                return known
            listed = await self._listed(request.workspace_id)
            mine = inventory.of_launch(listed, generation=request.generation, attempt=request.attempt)
            strays = await self._strays(frozen, listed, mine)
            if strays:
                await log.ainfo("launch.strays", attempt=request.attempt, instances=strays)
                return LaunchResult(strays=strays)
            if mine is not None:
                await log.ainfo("instance.adopted", instance=mine.instance_id, attempt=request.attempt)
                return await to_the_end(self._record(frozen, mine, adopted=True))
            return await to_the_end(self._run(request, pin))

    async def _pinned(self, request: Launch) -> "_Pin":
        """What the zone of the data volume makes of the spec: only its subnets are offered."""
        async with connection(self._pool) as conn:
            volume = await volumes.read(conn, request.workspace_id)
            opened = await generations.current(conn, request.workspace_id, request.generation)
        if volume is None or opened is None:
            return _anywhere
        zone, subnets = volume.zone, specs.load(opened.spec).subnet_ids
        zones = await self._aws.call(ebs.zones_of, self._aws.ec2, subnets) if subnets else {}
        return lambda spec: specs.pinned(spec, zone=zone, zones=zones)

    async def _freeze(self, conn: Connection, request: Launch, pin: "_Pin") -> tuple[Current, FrozenLaunch]:
        """The launch request as it was first made, while the generation is held open."""
        opened = await generations.hold(conn, request.workspace_id, request.generation)
        if opened is None:
            raise failures.superseded(request.generation)
        newest = await launches.newest_attempt(conn, request.workspace_id, request.generation)
        if newest > request.attempt:
            raise failures.superseded(request.generation, by=f"attempt {newest} took over")
        try:
            spec = pin(specs.load(opened.spec))
        except NoSubnetInZone as error:
            raise failures.give_up(
                "no_subnet_in_zone",
                str(error),
                hint="Add a subnet of that zone to BOX_SUBNET_IDS or the spec's subnet_ids, then request a "
                "recreate.",
            ) from None
        opened = replace(opened, spec=specs.dump(spec))
        frozen = await launches.freeze(
            conn,
            request.workspace_id,
            generation=request.generation,
            attempt=request.attempt,
            client_token=client_token(self._owner, request),
            request=specs.run_instances_request(
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
            raise failures.give_up(
                "invalid_user_data",
                str(error),
                hint="Correct the BOX_RUNTIME settings of the worker, then request a recreate.",
            ) from None

    async def _strays(
        self, frozen: FrozenLaunch, listed: list[Instance], mine: Instance | None
    ) -> tuple[str, ...]:
        """Whatever else may be alive, by EC2's word or by the record's: the list alone may be late."""
        async with connection(self._pool) as conn:
            unsettled = await launches.unsettled(conn, frozen.workspace_id)
            dead = await launches.declared_dead(conn, frozen.workspace_id)
        recorded = {launch.key for launch in unsettled if launch.number != frozen.number}
        seen = {
            instance.instance_id for instance in listed if not instance.terminated and instance is not mine
        }
        return tuple(sorted(recorded | seen - dead))

    async def _run(self, request: Launch, pin: "_Pin") -> LaunchResult:
        # The mark and the generation's row are one transaction: either a newer generation is opened first
        # and this call doesn't happen, or its fence sees the mark and waits for what comes of the call.
        async with connection(self._pool) as conn, conn.transaction():
            opened, frozen = await self._freeze(conn, request, pin)
            known = _known(opened, frozen)
            if known is not None:
                return known
            full = await self._known_to_be_full(conn, opened, frozen)
            if full is not None:
                return full
            user_data = self._filled(frozen, opened)
            mark = await launches.mark_called(conn, frozen)
        try:
            launched = await self._aws.call(_run_instances, self._aws.ec2, frozen, user_data)
        except ClientError as error:
            return await self._refused(opened, frozen, error, mark=mark)
        await log.ainfo("instance.launched", instance=launched.instance_id, attempt=request.attempt)
        return await self._record(frozen, launched, adopted=False)

    async def _known_to_be_full(
        self, conn: Connection, opened: Current, frozen: FrozenLaunch
    ) -> LaunchResult | None:
        """The same refusal, if EC2 gave it to somebody a moment ago, and this launch was never sent."""
        if frozen.called_at is not None:
            return None
        instance_type, subnet_id = _offering(frozen)
        bad = await offerings.recall(conn, instance_type=instance_type, subnet_id=subnet_id)
        if bad is None:
            return None
        await launches.refuse(conn, frozen, code=bad.code)
        await log.ainfo("launch.skipped", attempt=frozen.attempt, code=bad.code, until=bad.until)
        where = f"{instance_type} in {subnet_id or 'the default subnets'}"
        message = (
            f"no room for {where}, by an answer of a moment ago; asked again after {bad.until:%H:%M:%S} UTC"
        )
        return _out_of_capacity(opened, bad.code, message)

    def _filled(self, frozen: FrozenLaunch, opened: Current) -> str:
        """The user data with the generation's bootstrap secret: the same bytes each time."""
        try:
            secret = self._keys.bootstrap_secret(frozen.workspace_id, frozen.generation, key_id=opened.key_id)
        except KeyError:
            raise failures.give_up(
                "server_key_missing",
                f"generation {frozen.generation} was opened with key {opened.key_id!r}, which is not there",
                hint="Put the key back into SERVER_KEYS, or request a recreate, which uses the current key.",
            ) from None
        return fill_secret(frozen.user_data, secret)

    async def _refused(
        self, opened: Current, frozen: FrozenLaunch, error: ClientError, *, mark: datetime
    ) -> LaunchResult:
        code = aws_codes.code_of(error)
        await log.ainfo("launch.refused", attempt=frozen.attempt, code=code)
        if frozen.called_at is not None or aws_codes.is_quota(code) or aws_codes.is_ended(code):
            # An earlier call under this token may have launched this very box.
            mine = inventory.of_launch(
                await self._listed(frozen.workspace_id), generation=frozen.generation, attempt=frozen.attempt
            )
            if mine is not None:
                await log.ainfo("instance.adopted", instance=mine.instance_id, attempt=frozen.attempt)
                return await self._record(frozen, mine, adopted=True)
        if aws_codes.is_capacity(code) or aws_codes.is_ended(code):
            async with connection(self._pool) as conn, conn.transaction():
                await launches.refuse(conn, frozen, code=code)
                if aws_codes.is_capacity(code):
                    instance_type, subnet_id = _offering(frozen)
                    await offerings.remember(
                        conn,
                        instance_type=instance_type,
                        subnet_id=subnet_id,
                        code=code,
                        lasts=self._offerings_bad_for,
                    )
            return _out_of_capacity(opened, code, aws_codes.message_of(error))
        if aws_codes.had_no_effect(error) and frozen.called_at is None:
            # Nothing was launched under this token, so nothing has to be proven gone before the next one.
            async with connection(self._pool) as conn:
                await launches.unmark_called(conn, frozen, mark=mark)
        raise error

    async def _listed(self, workspace_id: str) -> list[Instance]:
        return await self._aws.call(
            inventory.by_tags, self._aws.ec2, owner=self._owner, workspace_id=workspace_id
        )

    async def _record(self, frozen: FrozenLaunch, instance: Instance, *, adopted: bool) -> LaunchResult:
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
            raise failures.superseded(frozen.generation, by="its instance is recorded, and will be fenced")
        return LaunchResult(instance_id=instance.instance_id, private_ip=instance.private_ip, adopted=adopted)


_Pin = Callable[[ResolvedSpec], ResolvedSpec]
"""Raises `NoSubnetInZone`."""


def _anywhere(spec: ResolvedSpec) -> ResolvedSpec:
    return spec


def client_token(owner: str, launch: Launch) -> str:
    """At most 64 characters. A token lives longer than its instance, so it names generation and attempt."""
    parts = (owner, launch.workspace_id, str(launch.generation), str(launch.attempt))
    return hashlib.sha256("|".join(parts).encode()).hexdigest()


def _offering(frozen: FrozenLaunch) -> tuple[str, str | None]:
    """The type and the subnet or zone that the frozen request asks for."""
    place = frozen.request.get("SubnetId")
    placement = frozen.request.get("Placement")
    if place is None and isinstance(placement, dict):
        place = placement.get("AvailabilityZone")
    return str(frozen.request["InstanceType"]), None if place is None else str(place)


def _known(opened: Current, frozen: FrozenLaunch) -> LaunchResult | None:
    """What the record already says came of this launch."""
    if frozen.instance_id is not None:
        return LaunchResult(instance_id=frozen.instance_id, private_ip=frozen.private_ip)
    if frozen.refused_code is not None:
        return _out_of_capacity(opened, frozen.refused_code, "refused before")
    return None


def _out_of_capacity(opened: Current, code: str, message: str) -> LaunchResult:
    return LaunchResult(
        capacity_code=code, capacity_message=message, offerings=specs.load(opened.spec).offerings
    )


def _run_instances(ec2: "EC2Client", frozen: FrozenLaunch, user_data: str) -> Instance:
    # The frozen request was built as parameters of this very call.
    request = cast(
        "RunInstancesRequestTypeDef",
        {**frozen.request, "ClientToken": frozen.client_token, "UserData": user_data},
    )
    return inventory.read(ec2.run_instances(**request)["Instances"][0])
