"""State of the simulated cloud: moto's backends, instances, client tokens and the journal.

Holds, saves and restores it. `launches`, `records` and `layer` implement the requests.
"""

import os
import pickle
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

from moto import settings
from moto.core.models import DEFAULT_ACCOUNT_ID
from moto.ec2.models import EC2Backend, ec2_backends
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from moto.route53.models import HostedZoneIdentifier, Route53Backend, route53_backends
from moto.utilities.id_generator import moto_id_manager
from werkzeug.wrappers import Response

from devstack.aws.call_counts import CallCounts
from devstack.aws.instances import Delays, Machine, Machines
from devstack.aws.journal import Journal
from devstack.aws.values import Entry, Info
from devstack.aws.wire import Call

PARTITION = "aws"
ZONE_NAME = "boxes.internal"
ZONE_ID = "Z0ONEBOXDEVSTACK"
"""Constant, so that settings can name it before the cloud exists."""
IMAGE_ID = "ami-12c6146b"
"""One of the images that moto provides."""

TOKEN_LIFETIME = 24 * 3600.0
"""EC2 keeps a client token for at least a day."""


@dataclass(frozen=True, slots=True)
class ClientTokenRecord:
    """The launch or the volume creation of a client token."""

    digest: str
    """Of its parameters: other parameters under the same token are refused."""
    instance_ids: tuple[str, ...]
    """Instance or volume ID."""
    at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class SavedState:
    """All state in one pickle, so that shared objects stay shared."""

    ec2: dict[str, EC2Backend]
    route53: Route53Backend
    machines: list[Machine]
    entries: list[Entry]
    client_tokens: dict[tuple[str, str, str], ClientTokenRecord]
    snapshots: dict[str, float]
    call_counts: CallCounts
    zone_id: str


@dataclass(slots=True, kw_only=True)
class Cloud:
    """The state and its lock; every reader and writer holds the lock."""

    region: str
    journal: Journal
    machines: Machines
    zone_id: str
    client_tokens: dict[tuple[str, str, str], ClientTokenRecord] = field(default_factory=dict)
    """By region, zone (empty if unspecified) and client token."""
    snapshots: dict[str, float] = field(default_factory=dict)
    """When each volume's newest snapshot was created."""
    call_counts: CallCounts = field(default_factory=CallCounts)
    """Requests of production code."""
    lock: threading.RLock = field(default_factory=threading.RLock)
    moto: DomainDispatcherApplication = field(
        default_factory=lambda: DomainDispatcherApplication(create_backend_app)
    )

    @classmethod
    def open(cls, region: str, delays: Delays, *, state: Path | None = None) -> "Cloud":
        """Create a new cloud, or load the one saved in the file."""
        # Unlike EC2, moto refuses unknown images and types only with this setting.
        settings.ENABLE_AMI_VALIDATION = True
        settings.EC2_ENABLE_INSTANCE_TYPE_VALIDATION = True
        if state is not None and state.exists():
            return cls._restored(pickle.loads(state.read_bytes()), region, delays)  # noqa: S301 (our own file)
        named = HostedZoneIdentifier(DEFAULT_ACCOUNT_ID, f"{ZONE_NAME}.", None)
        moto_id_manager.set_custom_id(named, ZONE_ID)
        zone = route53_backends[DEFAULT_ACCOUNT_ID][PARTITION].create_hosted_zone(
            f"{ZONE_NAME}.", private_zone=False, caller_reference=ZONE_NAME
        )
        journal = Journal()
        return cls(
            region=region, journal=journal, machines=Machines(journal, delays), zone_id=str(zone.resource_id)
        )

    def ec2(self, region: str) -> EC2Backend:
        """moto's EC2 backend of a region."""
        return ec2_backends[DEFAULT_ACCOUNT_ID][region]

    def route53(self) -> Route53Backend:
        """moto's Route 53 backend."""
        return route53_backends[DEFAULT_ACCOUNT_ID][PARTITION]

    def dispatch(self, call: Call) -> Response:
        """Let moto handle the request."""
        return call.send(self.moto)

    def advance(self) -> float:
        """Apply the state changes due since the last request. Returns the current time."""
        now = time.time()
        for machine in self.machines.advance(now):
            reservations = self.ec2(machine.region).reservations
            for reservation in list(reservations.values()):
                if machine.instance in reservation.instances:
                    reservation.instances.remove(machine.instance)
                if not reservation.instances:
                    del reservations[reservation.id]
        for key, replay in list(self.client_tokens.items()):
            if replay.at + TOKEN_LIFETIME < now and not any(map(self.machines.get, replay.instance_ids)):
                del self.client_tokens[key]
        return now

    def info(self) -> Info:
        """Return IDs and addresses of the cloud."""
        zones = self.ec2(self.region).subnets
        return Info(
            hosted_zone_id=self.zone_id,
            hosted_zone_name=ZONE_NAME,
            region=self.region,
            image_id=IMAGE_ID,
            subnet_ids=tuple(subnet_id for zone in sorted(zones) for subnet_id in zones[zone]),
        )

    def saved(self) -> bytes:
        """Return all state as bytes."""
        regions = ec2_backends[DEFAULT_ACCOUNT_ID]
        return pickle.dumps(
            SavedState(
                ec2={region: regions[region] for region in regions},
                route53=self.route53(),
                machines=list(self.machines),
                entries=self.journal.entries(),
                client_tokens=self.client_tokens,
                snapshots=self.snapshots,
                call_counts=self.call_counts,
                zone_id=self.zone_id,
            )
        )

    @classmethod
    def _restored(cls, saved: SavedState, region: str, delays: Delays) -> "Cloud":
        for name, backend in saved.ec2.items():
            ec2_backends[DEFAULT_ACCOUNT_ID][name] = backend
        route53_backends[DEFAULT_ACCOUNT_ID][PARTITION] = saved.route53
        journal = Journal(saved.entries)
        return cls(
            region=region,
            journal=journal,
            machines=Machines(journal, delays, machines=saved.machines),
            zone_id=saved.zone_id,
            client_tokens=saved.client_tokens,
            snapshots=saved.snapshots,
            call_counts=saved.call_counts,
        )


class StateWriter:
    """Saves the state to its file before a response is sent, so that it survives any end of the process.

    Concurrent requests share one write.
    """

    def __init__(self, cloud: Cloud, file: Path) -> None:
        self._cloud = cloud
        self._file = file
        self._turn = threading.Lock()
        self._counter = threading.Lock()
        self._changes = 0
        self._saved = 0

    def save(self) -> None:
        """Return once every change before this call is in the file."""
        with self._counter:
            self._changes += 1
            mine = self._changes
        with self._turn:
            if self._saved >= mine:
                return  # a concurrent write already included our change
            with self._counter:
                covered = self._changes
            with self._cloud.lock:
                content = self._cloud.saved()
            self._write(content)
            self._saved = covered

    def _write(self, content: bytes) -> None:
        self._file.parent.mkdir(parents=True, exist_ok=True)
        new = self._file.with_suffix(".new")
        # Owner only: user data contains secrets.
        with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write(content)
        new.replace(self._file)
