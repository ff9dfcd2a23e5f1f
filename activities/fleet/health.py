"""Fleet health: reads the fleet's counts and applies the circuit breaker (`workflows.fleet.rules`)."""

import asyncio
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING

from botocore.exceptions import BotoCoreError, ClientError

from activities.aws import errors
from activities.aws.client import Aws
from store.db.pool import Connection, Pool, connection
from store.fleet import recreate_permits
from store.fleet.watchdog_queries import WatchdogThresholds
from workflows.fleet.rules import FleetCounts, FleetDecision, FleetPolicy, decide

if TYPE_CHECKING:
    from mypy_boto3_ec2 import EC2Client

EC2_CHECK_TTL = timedelta(seconds=5)
"""How long one check of EC2 is reused: a thousand permit requests must not make a thousand calls."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetConfig:
    """The worker's settings for the fleet."""

    policy: FleetPolicy = field(default_factory=FleetPolicy)
    thresholds: WatchdogThresholds = field(default_factory=WatchdogThresholds)


class FleetHealth:
    """Needs PostgreSQL and EC2. One instance per worker, so that all share one check of EC2."""

    def __init__(self, *, aws: Aws, pool: Pool, policy: FleetPolicy) -> None:
        self._aws = aws
        self._pool = pool
        self._policy = policy
        self._check_lock = asyncio.Lock()
        self._last_check: tuple[float, str | None] | None = None

    async def frozen(self) -> str | None:
        """Why a rollout must not start further members; None if it may. Ignores the concurrency limit."""
        ec2_error = await self.ec2_error()
        if ec2_error is not None:
            return ec2_error
        async with connection(self._pool) as conn:
            _, decision = await self.evaluate(conn)
            return decision.frozen

    async def evaluate(
        self, conn: Connection, *, exclude: str | None = None
    ) -> tuple[FleetCounts, FleetDecision]:
        """Count the fleet and apply the policy. Records when too many workspaces are stale at once."""
        counts = await recreate_permits.read_counts(conn, exclude=exclude)
        decision = decide(counts, self._policy)
        if decision.fleet_stale:
            await recreate_permits.record_fleet_stale(conn)
        return counts, decision

    async def ec2_error(self) -> str | None:
        """Why EC2 cannot be read; None if it can. The result is cached for `EC2_CHECK_TTL`."""
        async with self._check_lock:
            now = asyncio.get_running_loop().time()
            if self._last_check is None or now - self._last_check[0] > EC2_CHECK_TTL.total_seconds():
                self._last_check = (now, await self._check_ec2())
            return self._last_check[1]

    async def _check_ec2(self) -> str | None:
        try:
            await self._aws.call(_describe_some, self._aws.ec2)
        except ClientError as error:
            return f"EC2 cannot be read: {errors.code_of(error)}"
        except BotoCoreError as error:
            return f"EC2 cannot be reached: {type(error).__name__}"
        return None


def _describe_some(ec2: "EC2Client") -> None:
    ec2.describe_instances(MaxResults=5)
