"""A workspace on a real PostgreSQL and an AWS endpoint, and the activities to run on it."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial
from typing import TypeVar, cast

import pytest
from psycopg.rows import dict_row
from temporalio import activity
from temporalio.exceptions import ApplicationError
from temporalio.testing import ActivityEnvironment

from activities.aws.client import Aws
from activities.aws.instances import box_tags
from activities.registry import ActivitiesConfig, implementations
from activities.workspace.address import Zone
from activities.workspace.box_spec import BoxDefaults
from activities.workspace.canary import CanaryConfig
from activities.workspace.fence import PollPolicy
from devstack.aws.client import AwsEndpoint
from devstack.aws.values import Info
from store.db.pool import Pool
from store.registration.credentials import ServerKeys
from tests.database import PATIENCE
from workers.history.divergence import find_divergence
from workflows.shared.encryption import Encryption, PayloadKeys
from workflows.workspace import contract
from workflows.workspace.enums import Intent
from workflows.workspace.messages import WorkspaceSpec

OWNER = "onebox-tests"
KEYS = ServerKeys(current="k1", keys={"k1": b"1" * 32})

Q = TypeVar("Q")
A = TypeVar("A")
Row = dict[str, object]


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """A workspace, PostgreSQL, the AWS endpoint, and the control plane's configuration."""

    workspace_id: str
    pool: Pool
    aws: Aws
    endpoint: AwsEndpoint
    config: ActivitiesConfig
    keys: ServerKeys = KEYS

    async def run(self, port: Callable[[Q], Awaitable[A]], request: Q) -> A:
        """Run an activity once, given its stub, as a worker would."""
        return await ActivityEnvironment().run(self.implementation(port), request)

    def implementation(self, port: Callable[[Q], Awaitable[A]]) -> Callable[[Q], Awaitable[A]]:
        """The implementation of an activity stub."""
        queues = implementations(aws=self.aws, pool=self.pool, keys=self.keys, config=self.config)
        found = [one for queue in queues.values() for one in queue if name_of(one) == name_of(port)]
        assert len(found) == 1
        return cast("Callable[[Q], Awaitable[A]]", found[0])

    async def fails(self, port: Callable[[Q], Awaitable[A]], request: Q) -> ApplicationError:
        """Run an activity that must fail, and return its error."""
        with pytest.raises(ApplicationError) as raised:
            await self.run(port, request)
        assert raised.value.__cause__ is None, "a cause would be stored in the history"
        return raised.value

    async def enrolled(self, spec: WorkspaceSpec | None = None) -> contract.Enrolled:
        return await self.run(
            contract.enroll, contract.Enroll(workspace_id=self.workspace_id, spec=spec or WorkspaceSpec())
        )

    async def opened(self, *, after: int = 0, spec: WorkspaceSpec | None = None) -> int:
        """Enroll and open the generation after `after`."""
        await self.enrolled(spec)
        request = contract.OpenGeneration(workspace_id=self.workspace_id, after=after)
        return (await self.run(contract.open_generation, request)).generation

    async def closed(self, generation: int, *, intent: Intent = Intent.STOP) -> None:
        await self.run(
            contract.close_workspace,
            contract.CloseWorkspace(workspace_id=self.workspace_id, generation=generation, intent=intent),
        )

    def launch(self, generation: int, *, attempt: int = 1) -> contract.Launch:
        return contract.Launch(workspace_id=self.workspace_id, generation=generation, attempt=attempt)

    async def launched(self, generation: int, *, attempt: int = 1) -> str:
        result = await self.run(contract.launch, self.launch(generation, attempt=attempt))
        assert result.instance_id is not None
        return result.instance_id

    def fence(
        self,
        generation: int,
        *,
        keep_attempt: int | None = 1,
        declared_dead: tuple[str, ...] = (),
        proven_gone: tuple[str, ...] = (),
    ) -> contract.FenceInstances:
        return contract.FenceInstances(
            workspace_id=self.workspace_id,
            generation=generation,
            keep_attempt=keep_attempt,
            declared_dead=declared_dead,
            proven_gone=proven_gone,
        )

    def address(self, generation: int, instance_id: str, *, attempt: int = 1) -> contract.Address:
        return contract.Address(
            workspace_id=self.workspace_id, generation=generation, attempt=attempt, instance_id=instance_id
        )

    async def rows(self, query: str, **values: object) -> list[Row]:
        """Rows of a query in which `%(workspace_id)s` is this workspace."""
        async with self.pool.connection() as conn:
            cursor = conn.cursor(row_factory=dict_row)
            # The query is a literal of a test.
            await cursor.execute(query.encode(), {"workspace_id": self.workspace_id, **values})
            return cast("list[Row]", await cursor.fetchall()) if cursor.description else []

    async def launch_row(self, generation: int, attempt: int = 1) -> Row:
        rows = await self.rows(
            "SELECT * FROM launches WHERE workspace_id = %(workspace_id)s"
            " AND generation = %(generation)s AND attempt = %(attempt)s",
            generation=generation,
            attempt=attempt,
        )
        return rows[0]

    async def workspace_row(self) -> Row:
        return (await self.rows("SELECT * FROM workspaces WHERE workspace_id = %(workspace_id)s"))[0]

    async def unrecorded_instance(
        self, *, owner: str = OWNER, generation: int = 1, attempt: int = 7, zone: str | None = None
    ) -> str:
        """Launch an instance with the workspace's tags that is not recorded."""
        tags = box_tags(owner=owner, workspace_id=self.workspace_id, generation=generation, attempt=attempt)
        reservation = await self.aws.call(
            self.aws.ec2.run_instances,
            ImageId=self.config.boxes.image_id,
            InstanceType="t3.micro",
            MinCount=1,
            MaxCount=1,
            Placement={"AvailabilityZone": zone} if zone else {},
            TagSpecifications=[
                {
                    "ResourceType": "instance",
                    "Tags": [{"Key": key, "Value": value} for key, value in tags.items()],
                }
            ],
        )
        return reservation["Instances"][0]["InstanceId"]

    def states(self) -> dict[str, str]:
        """The states of the workspace's instances."""
        return {view.instance_id: view.state for view in self.endpoint.instances(self.workspace_id)}

    @property
    def launches(self) -> int:
        """The number of instances ever launched for the workspace."""
        return self.endpoint.counts(self.workspace_id).launches

    def with_one_poll(self) -> "World":
        """The same workspace, with one poll for terminations and detachments."""
        poll_policy = replace(self.config.poll_policy, termination=timedelta())
        return self.with_config(replace(self.config, poll_policy=poll_policy))

    def with_config(self, config: ActivitiesConfig) -> "World":
        return replace(self, config=config)


def name_of(function: Callable[..., object]) -> str | None:
    """The name of an activity in Temporal."""
    return activity._Definition.must_from_callable(function).name


def config_for(info: Info) -> ActivitiesConfig:
    """A configuration for the endpoint, with short polls and long timeouts."""
    return ActivitiesConfig(
        owner=OWNER,
        boxes=BoxDefaults(
            image_id=info.image_id,
            instance_types=("t3.micro", "t3.small"),
            subnet_ids=info.subnet_ids[:2],
            register_api_url="http://register.test:8080",
            runtime_command="runtime --serve",
            runtime_user="agent",
            runtime_port=8000,
            configs_dir="/configs",
        ),
        find_divergence=partial(find_divergence, codec=Encryption(PayloadKeys.parse(""))),
        zone=Zone(zone_id=info.hosted_zone_id, name=info.hosted_zone_name),
        canary=CanaryConfig(allow_loopback=True, response_timeout=PATIENCE),
        unavailable_offering_ttl=timedelta(0),
        poll_policy=PollPolicy(termination=PATIENCE, running=PATIENCE, poll=timedelta(milliseconds=20)),
    )
