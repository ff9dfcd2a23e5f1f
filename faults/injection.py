"""Injects faults and ends them: processes, connections, the AWS endpoint, PostgreSQL, the hosts of boxes.

Reports for each fault whether it was effective; the evidence shows the consequences.
"""

import asyncio
import contextlib
import itertools
import os
import signal
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
import psutil
import psycopg
from temporalio.client import RPCError

from devstack.aws.client import AwsEndpoint
from devstack.aws.values import FaultKind
from faults import full_disk
from faults.fault_kinds import KINDS, Family, Kind
from faults.schedule import Fault
from faults.stage import Stage

POLL_SECONDS = 0.1

EFFECT_SECONDS = 45.0
"""A fault that affects nothing within this time ends and does not count."""

TRIGGERED_EFFECT_SECONDS = 120.0
"""The same for a fault with a trigger: once the other faults have passed, the trigger works."""

TRIGGER_INTERVAL_SECONDS = 6.0
"""Pause between triggers; the triggered part may be down."""

CLOCK_JUMPS = (-86_400.0, -45.0, 75.0, 3_600.0)
"""Clock offsets in seconds: a suspended machine, an empty battery, a wrong setting."""

AWS_ACTIONS = {
    "lost_answer": ("RunInstances", "TerminateInstances", "ChangeResourceRecordSets"),
    "throttling": ("RunInstances", "TerminateInstances", "DescribeInstances", "ChangeResourceRecordSets"),
    "capacity": ("RunInstances",),
    "empty_list": ("DescribeInstances",),
    "late_list": ("DescribeInstances",),
    "slow_change": ("RunInstances", "TerminateInstances"),
}

FULL_DATABASE = Kind(family=Family.DATABASE, what="disk_full")

UNAVAILABLE = (RPCError, httpx2.HTTPError, psycopg.Error, TimeoutError)

Trigger = Callable[[str], Awaitable[None]]


class Injector:
    """Injects the faults of one stage."""

    def __init__(
        self, stage: Stage, aws: AwsEndpoint, workspaces: list[str], *, replace: Trigger, delegate: Trigger
    ) -> None:
        """`replace` requests a recreate and `delegate` sends work, so that a fault takes effect."""
        self._stage = stage
        self._aws = aws
        self._workspaces = workspaces
        self._replace = replace
        self._delegate = delegate

    async def inject(self, fault: Fault) -> bool:
        """Inject the fault, keep it for its duration, end it. Returns whether it was effective."""
        try:
            match fault.kind.family:
                case Family.KILL:
                    return await self._kill(fault)
                case Family.FREEZE:
                    return await self._freeze(fault)
                case Family.CUT | Family.SLOW | Family.HALF_OPEN:
                    return await self._disturb(fault)
                case Family.AWS:
                    return await self._misbehave(fault)
                case Family.DATABASE:
                    full = fault.kind == FULL_DATABASE
                    return await (self._fill if full else self._read_only)(fault.seconds)
                case Family.MACHINE:
                    return await self._host_fault(fault)
        except (psutil.NoSuchProcess, ProcessLookupError):
            return False  # another fault has just ended the process

    async def end_all(self) -> None:
        """End all remaining faults, whatever happened to the tasks that injected them."""
        await asyncio.to_thread(self._aws.clear)
        await self._set_read_only("off", seconds=60)
        for file in ("clock", "full"):
            (self._stage.host_faults_dir / file).unlink(missing_ok=True)

    async def _kill(self, fault: Fault) -> bool:
        pid = await self._process(fault)
        if pid is None:
            return False
        os.kill(pid, signal.SIGKILL)
        return True

    async def _freeze(self, fault: Fault) -> bool:
        pid = await self._process(fault)
        if pid is None:
            return False
        process = psutil.Process(pid)
        frozen = [process, *process.children(recursive=True)]
        try:
            for each in frozen:
                with contextlib.suppress(psutil.NoSuchProcess):
                    each.suspend()
            await asyncio.sleep(fault.seconds)
        finally:
            for each in frozen:
                with contextlib.suppress(psutil.NoSuchProcess):
                    each.resume()
        return True

    async def _process(self, fault: Fault) -> int | None:
        """Return the process ID of a part or of a box, once one runs; a kill needs a target."""
        part = fault.kind.what
        found: list[int] = []

        def is_up() -> bool:
            if part == "box":
                found.extend(box.pid for box in self._stage.stack.boxes)
            elif (pid := self._stage.stack.pids.get(part)) is not None:
                found.append(pid)
            return bool(found)

        return fault.choose(found) if await _wait_until(is_up) else None

    async def _disturb(self, fault: Fault) -> bool:
        """Disturb a connection; boxes get little traffic unless they have work."""
        wire = fault.kind.what

        async def delegate(attempt: int) -> None:
            await self._delegate(fault.choose(self._workspaces, attempt=attempt))

        with self._stage.proxies.disturbed(wire, fault.kind.family) as effective:
            provoke = delegate if wire == "worker-box" else None
            return await _hold(fault.seconds, lambda: effective() > 0, provoke)

    async def _misbehave(self, fault: Fault) -> bool:
        """Inject an AWS fault, and trigger requests that it affects."""
        what = fault.kind.what
        actions = AWS_ACTIONS[what]
        action = actions[int(fault.draw * 1000) % len(actions)]
        kind, code, status = FaultKind.ERROR, "RequestLimitExceeded", 503
        if what == "throttling" and action == "ChangeResourceRecordSets":
            code, status = "Throttling", 400  # Route 53's format
        elif what == "capacity":
            code, status = "InsufficientInstanceCapacity", 500
        elif what != "throttling":
            kind = FaultKind(what)
        armed = await asyncio.to_thread(
            self._aws.inject,
            action,
            kind,
            code=code,
            status=status,
            seconds=fault.seconds,
            times=None if what in ("late_list", "slow_change") else 1 + int(fault.draw * 3),
        )
        try:
            return await _hold(
                fault.seconds,
                lambda: self._aws.fault(armed).used > 0,
                lambda attempt: self._replace(fault.choose(self._workspaces, attempt=attempt)),
            )
        finally:
            await asyncio.to_thread(self._aws.release, armed)

    async def _read_only(self, seconds: float) -> bool:
        done = await self._set_read_only("on", seconds=EFFECT_SECONDS)
        await asyncio.sleep(seconds if done else 0)
        await self._set_read_only("off", seconds=60)
        return done

    async def _set_read_only(self, value: str, *, seconds: float) -> bool:
        url = self._stage.stack.database_url

        def alter() -> bool:
            try:
                with psycopg.connect(url, autocommit=True, connect_timeout=3) as database:
                    database.execute("SET default_transaction_read_only = off")
                    database.execute(f"ALTER SYSTEM SET default_transaction_read_only = {value}".encode())
                    database.execute("SELECT pg_reload_conf()")
            except psycopg.Error:
                return False
            return True

        deadline = time.monotonic() + seconds
        while not await asyncio.to_thread(alter):
            if time.monotonic() > deadline:
                return False
            await asyncio.sleep(POLL_SECONDS)
        return True

    async def _fill(self, seconds: float) -> bool:
        if self._stage.disk is None:
            return False
        with full_disk.filled(self._stage.disk):
            await asyncio.sleep(seconds)
        return True

    async def _host_fault(self, fault: Fault) -> bool:
        """Disturb the hosts of all boxes until one is affected."""
        befell = self._stage.host_faults_dir / "befell"
        word = "full" if fault.kind.what == "disk_full" else "clock"
        before = _lines(befell, word)
        jump = CLOCK_JUMPS[int(fault.draw * len(CLOCK_JUMPS))]
        with _temporary_file(self._stage.host_faults_dir / word, str(jump)):
            return await _hold(
                fault.seconds,
                lambda: _lines(befell, word) > before,
                (lambda attempt: self._lose_token(fault, attempt)) if word == "full" else None,
            )

    async def _lose_token(self, fault: Fault, attempt: int) -> None:
        """Make a box lose its token file, so that it has to write a new one."""
        if addresses := [box.private_ip for box in self._stage.stack.boxes]:
            address = fault.choose(addresses, attempt=attempt)
            url = f"http://{address}:{self._stage.listen_port}/_control"
            async with httpx2.AsyncClient(timeout=5, trust_env=False) as http:
                await http.post(url, json={"mode": "lose_token"})


async def _hold(
    seconds: float, effective: Callable[[], bool], trigger: Callable[[int], Awaitable[None]] | None = None
) -> bool:
    """Wait for the duration, or longer until it is effective; repeat `trigger`. Returns whether it was."""
    began = time.monotonic()
    patience = EFFECT_SECONDS if trigger is None else TRIGGERED_EFFECT_SECONDS
    for attempt in itertools.count():
        if trigger is not None:
            with contextlib.suppress(*UNAVAILABLE):
                async with asyncio.timeout(TRIGGER_INTERVAL_SECONDS):
                    await trigger(attempt)
        if await _wait_until(effective, seconds=TRIGGER_INTERVAL_SECONDS):
            break
        if time.monotonic() - began > patience:
            return False
    await asyncio.sleep(began + seconds - time.monotonic())
    return True


async def _wait_until(condition: Callable[[], bool], *, seconds: float = EFFECT_SECONDS) -> bool:
    """Poll until the condition holds. Returns False on timeout."""
    deadline = time.monotonic() + seconds
    while not await asyncio.to_thread(condition):
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(POLL_SECONDS)
    return True


def supported_kinds(*, disk: bool) -> tuple[Kind, ...]:
    """Return the kinds that this machine supports."""
    return tuple(kind for kind in KINDS if disk or kind != FULL_DATABASE)


def _lines(file: Path, word: str) -> int:
    try:
        return sum(line.startswith(word) for line in file.read_text().splitlines())
    except FileNotFoundError:
        return 0


@contextmanager
def _temporary_file(file: Path, text: str) -> Iterator[None]:
    """Create a file for the duration of the block."""
    file.write_text(text)
    try:
        yield
    finally:
        file.unlink(missing_ok=True)
