"""The instances of the simulated cloud and their state transitions.

Sets the state of moto's instances. `launches` decides what is launched or terminated.
"""

import secrets
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network

from moto.ec2.models.elastic_block_store import Volume, VolumeAttachment
from moto.ec2.models.instances import Instance

from devstack.aws.journal import ALIVE, TERMINATED, Journal
from devstack.aws.values import GENERATION_TAG, STATE_CHANGE, VOLUME_CHANGE, WORKSPACE_TAG, VolumeChange

STATE_CODES = {
    "pending": 0,
    "running": 16,
    "shutting-down": 32,
    TERMINATED: 48,
    "stopping": 64,
    "stopped": 80,
}

LISTED_AFTER_END = 3600.0
"""EC2 lists a terminated instance for about an hour."""

PRIVATE_NETWORK = IPv4Network("127.64.0.0/10")
"""Loopback, so that each box can bind its own address on this machine."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Delays:
    """Duration of state transitions, in seconds."""

    pending_seconds: float = 1.0
    """From launched to running."""
    terminating_seconds: float = 1.0
    """From shutting down to terminated, and from stopping to stopped."""


@dataclass(slots=True, kw_only=True)
class Machine:
    """moto's instance and its state transition in progress."""

    instance: Instance
    region: str
    tags: dict[str, str]
    private_ip: str
    launched_at: float
    user_data: bytes = field(repr=False)
    state: str = "pending"
    next_state: str | None = None
    due: float = 0.0
    """When the transition ends."""
    ended_at: float | None = None

    @property
    def instance_id(self) -> str:
        """EC2's name of the state."""
        return str(self.instance.id)

    @property
    def workspace(self) -> str | None:
        """The workspace that it was launched for."""
        return self.tags.get(WORKSPACE_TAG)

    @property
    def generation(self) -> int | None:
        """The generation that it was launched for."""
        return int(self.tags[GENERATION_TAG]) if self.tags.get(GENERATION_TAG, "").isdecimal() else None


class Machines:
    """All listed instances. Callers hold the cloud's lock."""

    def __init__(self, journal: Journal, delays: Delays, *, machines: Iterable[Machine] = ()) -> None:
        self._journal = journal
        self._delays = delays
        self._machines = {machine.instance_id: machine for machine in machines}

    def __iter__(self) -> Iterator[Machine]:
        return iter(self._machines.values())

    def get(self, instance_id: str) -> Machine | None:
        """Return a listed instance by its ID."""
        return self._machines.get(instance_id)

    def launched(
        self, instance: Instance, *, region: str, tags: dict[str, str], user_data: bytes, now: float
    ) -> Machine:
        """Add an instance that moto has just created: pending, with its own address."""
        address = self._unused_address()
        for interface in instance.nics.values():
            interface.private_ip_address = address
            interface.private_ip_addresses = [{"Primary": True, "PrivateIpAddress": address}]
        machine = Machine(
            instance=instance,
            region=region,
            tags=tags,
            private_ip=address,
            launched_at=now,
            user_data=user_data,
        )
        self._machines[machine.instance_id] = machine
        return machine

    def begin(self, machine: Machine, *, now: float) -> None:
        """Start a launched or stopped instance: pending, then running."""
        self._transition(machine, "pending", now=now)
        machine.next_state, machine.due = "running", now + self._delays.pending_seconds

    def terminate(self, machine: Machine, *, now: float) -> None:
        """Terminate the instance; no effect if termination has begun."""
        if machine.state not in {"shutting-down", TERMINATED}:
            self._transition(machine, "shutting-down", now=now)
            machine.next_state, machine.due = TERMINATED, now + self._delays.terminating_seconds
        self._record_state(machine)  # moto reports it as terminated at once

    def stop(self, machine: Machine, *, now: float) -> None:
        """Stop the instance so that it can be started again."""
        if machine.state in ALIVE:
            self._transition(machine, "stopping", now=now)
            machine.next_state, machine.due = "stopped", now + self._delays.terminating_seconds
        self._record_state(machine)

    def advance(self, now: float) -> list[Machine]:
        """Apply the transitions that are due. Returns the instances that are no longer listed."""
        for machine in sorted(self._machines.values(), key=lambda machine: machine.due):
            if machine.next_state is not None and machine.due <= now:
                state, machine.next_state = machine.next_state, None
                self._transition(machine, state, now=machine.due)
        forgotten = [
            machine
            for machine in self._machines.values()
            if machine.ended_at is not None and machine.ended_at + LISTED_AFTER_END < now
        ]
        for machine in forgotten:
            del self._machines[machine.instance_id]
        return forgotten

    def delay(self, machine: Machine, seconds: float) -> None:
        """Prolong the transition in progress, if there is one."""
        if machine.next_state is not None:
            machine.due += seconds

    def record_volume_change(
        self, machine: Machine, volume_id: str, change: VolumeChange, *, now: float
    ) -> None:
        """Record that an instance attached or released a volume."""
        self._journal.add(
            VOLUME_CHANGE,
            change,
            at=now,
            workspace=machine.workspace,
            generation=machine.generation,
            instance_ids=[machine.instance_id],
            parameters={"VolumeId": volume_id},
        )

    def _transition(self, machine: Machine, state: str, *, now: float) -> None:
        machine.state = state
        machine.ended_at = now if state == TERMINATED else None
        self._record_state(machine)
        self._journal.add(
            STATE_CHANGE,
            state,
            at=now,
            workspace=machine.workspace,
            generation=machine.generation,
            instance_ids=[machine.instance_id],
        )
        if state == TERMINATED:
            for volume, _ in attached_to(machine):
                volume.attachment = None
                self.record_volume_change(machine, str(volume.id), VolumeChange.DETACHED, now=now)

    def _record_state(self, machine: Machine) -> None:
        # The very object that moto's filters read.
        machine.instance._state.name = machine.state
        machine.instance._state.code = STATE_CODES[machine.state]

    def _unused_address(self) -> str:
        # Random, because several stacks on one machine share the network. Addresses rarely repeat.
        used = {machine.private_ip for machine in self._machines.values()}
        while True:
            offset = secrets.randbelow(PRIVATE_NETWORK.num_addresses - 2) + 1
            address = str(IPv4Address(int(PRIVATE_NETWORK.network_address) + offset))
            if address not in used:
                return address


def attached_to(machine: Machine) -> list[tuple[Volume, VolumeAttachment]]:
    """Return all volumes of an instance, including its root volume."""
    return [
        (volume, volume.attachment)
        for volume in machine.instance.ec2_backend.volumes.values()
        if volume.attachment is not None and volume.attachment.instance is machine.instance
    ]
