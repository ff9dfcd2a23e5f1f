"""The ports, secrets and child environment of a stack, computed before anything runs."""

import hashlib
import json
import os
import pwd
import secrets
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

from devstack.aws.values import Info
from devstack.processes import LOCALHOST, PortInUse, free_port, port_is_free

REGION = "us-east-1"

BALANCER = "127.0.0.2"
"""Source address of the balancer's calls. The register APIs trust `X-Forwarded-For` from this address
only."""

OVERRIDABLE_DEFAULTS = {
    "BOX_INSTANCE_TYPES": "t3.small,t3.medium",
    "BOX_RUNTIME_COMMAND": shlex.join([sys.executable, "-m", "devstack.runtime"]),
    "EC2_MUTATIONS_PER_SECOND": "20",
    "GRACEFUL_SHUTDOWN_SECONDS": "5",
    "HEARTBEAT_SECONDS": "3",
    "HEARTBEAT_STALE_SECONDS": "15",
    "LOG_FORMAT": "json",
    "ONEBOX_WATCH_SECONDS": "5",
}
"""Defaults for one machine; the caller's environment overrides them."""

EXCLUDED_VARIABLES = ("AWS_", "TEMPORAL_", "BOX_", "DNS_", "DATABASE_", "PG")
"""Removed from the environment, so that a shell set up for real AWS or Temporal does not leak in."""

API_PORT_SUFFIX = "-calls"
"""Suffix of the port names of additional register APIs."""

NO_PROXY_VARIABLES = frozenset({"http_proxy", "https_proxy", "all_proxy"})
"""All servers listen on this machine."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ports:
    """Where the servers listen."""

    temporal: int = 7233
    temporal_ui: int = 8233
    register_api: int = 8080
    postgres: int = 5433
    """Not 5432, which a PostgreSQL installed on the machine uses."""
    aws: int = 4566
    codec: int = 8081
    """Used with PAYLOAD_KEYS only."""
    worker_metrics: int = 9464
    """OpenTelemetry's port for Prometheus; the next two follow it."""
    sdk_metrics: int = 9465
    api_metrics: int = 9466
    box_runtime: int = 8000
    """Each box has its own address and listens on this port."""
    others: Mapping[str, int] = field(default_factory=dict)
    """Ports of additional workers and register APIs, by name; always free ones."""

    @property
    def temporal_address(self) -> str:
        """Temporal's frontend, as host:port."""
        return f"{LOCALHOST}:{self.temporal}"

    @property
    def temporal_ui_url(self) -> str:
        """Temporal's UI."""
        return f"http://{LOCALHOST}:{self.temporal_ui}"

    @property
    def register_api_url(self) -> str:
        """The register API as boxes reach it."""
        return f"http://{LOCALHOST}:{self.register_api}"

    @property
    def codec_url(self) -> str:
        """The codec server, if there is one."""
        return f"http://{LOCALHOST}:{self.codec}"

    @property
    def metrics_urls(self) -> dict[str, str]:
        """Metrics endpoints for Prometheus, by job; a second worker adds `worker-2` and `sdk-2`."""
        ports = {"worker": self.worker_metrics, "sdk": self.sdk_metrics, "api": self.api_metrics}
        ports |= {name: port for name, port in self.others.items() if not name.endswith(API_PORT_SUFFIX)}
        return {job: f"http://{LOCALHOST}:{port}/metrics" for job, port in ports.items()}

    @property
    def aws_url(self) -> str:
        """The AWS endpoint."""
        return f"http://{LOCALHOST}:{self.aws}"

    @classmethod
    def chosen(cls, file: Path, *, free: bool, others: Sequence[str] = ()) -> "Ports":
        """Return the default ports, or free ones; earlier free ports are kept if possible.

        Raises `PortInUse`. Running boxes know the register API's address from their launch. The ports of
        `others` are always free ones.
        """
        names = [each.name for each in fields(cls) if each.name != "others"]
        if not free:
            ports = cls(others=_free(others, {}))
            for name in names:
                port: int = getattr(ports, name)
                if name not in ("box_runtime", "codec") and not port_is_free(port):
                    raise PortInUse(
                        f"port {port} ({name.replace('_', ' ')}) is in use on {LOCALHOST}: "
                        "stop what listens there, or use --free-ports"
                    )
            return ports
        before: dict[str, int] = json.loads(file.read_text()) if file.exists() else {}
        numbers = _free([*names, *others], before)
        file.write_text(json.dumps(numbers))
        return cls(**{name: numbers[name] for name in names}, others={name: numbers[name] for name in others})


def _free(names: Sequence[str], before: Mapping[str, int]) -> dict[str, int]:
    """Return a free port for each name, and the earlier one if it is still free."""
    numbers: dict[str, int] = {}
    for name in names:
        port = before.get(name)
        while port is None or port in numbers.values() or not port_is_free(port):
            port = free_port()
        numbers[name] = port
    return numbers


@dataclass(frozen=True, slots=True, kw_only=True)
class Secrets:
    """Generated once per data directory."""

    server_keys: str
    operator_token: str
    owner: str
    """The control plane's ID; not secret, but equally permanent."""

    @classmethod
    def load_or_create(cls, file: Path) -> "Secrets":
        """Load the stored secrets, or create new ones."""
        if file.exists():
            return cls(**json.loads(file.read_text()))
        made = cls(
            server_keys=f"k1:{secrets.token_hex(32)}",
            operator_token=secrets.token_urlsafe(32),
            owner=f"devstack-{secrets.token_hex(4)}",
        )
        with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as opened:
            json.dump(asdict(made), opened)
        return made


def base_environment(
    ports: Ports, keys: Secrets, *, caller: Mapping[str, str], settings: Mapping[str, str]
) -> dict[str, str]:
    """Return the children's environment as far as it is known before anything runs.

    `settings` overrides everything; the caller's environment overrides the defaults.
    """
    inherited = {
        name: value
        for name, value in caller.items()
        if not name.startswith(EXCLUDED_VARIABLES) and name.lower() not in NO_PROXY_VARIABLES
    }
    operators = hashlib.sha256(keys.operator_token.encode()).hexdigest()
    tuned = {name: caller.get(name, default) for name, default in OVERRIDABLE_DEFAULTS.items()}
    wiring = {
        "SERVER_KEYS": keys.server_keys,
        "OPERATOR_TOKEN_HASHES": operators,
        "CONTROL_PLANE_ID": keys.owner,
        "REGISTER_API_URL": ports.register_api_url,
        "REGISTER_API_BIND": f"{LOCALHOST}:{ports.register_api}",
        "CODEC_BIND": f"{LOCALHOST}:{ports.codec}",
        "CODEC_TOKEN_HASHES": operators,
        "CODEC_ORIGINS": ports.temporal_ui_url,
        "WORKER_METRICS_BIND": f"{LOCALHOST}:{ports.worker_metrics}",
        "SDK_METRICS_BIND": f"{LOCALHOST}:{ports.sdk_metrics}",
        "API_METRICS_BIND": f"{LOCALHOST}:{ports.api_metrics}",
        "BOX_RUNTIME_PORT": str(ports.box_runtime),
        "BOX_RUNTIME_USER": _our_name(),
        "ALLOW_LOOPBACK_TARGETS": "1",
        "TEMPORAL_ADDRESS": ports.temporal_address,
        "AWS_ENDPOINT_URL": ports.aws_url,
        "AWS_REGION": REGION,
        "AWS_DEFAULT_REGION": REGION,
        "AWS_ACCESS_KEY_ID": "devstack",
        "AWS_SECRET_ACCESS_KEY": "devstack",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "PYTHONUNBUFFERED": "1",
    }
    return inherited | tuned | wiring | dict(settings)


def cloud_environment(info: Info) -> dict[str, str]:
    """Return the variables that are known once the AWS endpoint is up."""
    return {
        "DNS_ZONE_ID": info.hosted_zone_id,
        "DNS_ZONE_NAME": info.hosted_zone_name,
        "BOX_IMAGE_ID": info.image_id,
        "BOX_SUBNET_IDS": ",".join(info.subnet_ids[:3]),
    }


def _our_name() -> str:
    """Run agent runtimes as the current user; as root, the box script would look for the image's user."""
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return "agent"  # only root needs a user name


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessCounts:
    """Number, names and ports of the workers and register APIs."""

    workers: int = 1
    apis: int = 1

    @property
    def worker_names(self) -> tuple[str, ...]:
        """worker, worker-2 …"""
        return _numbered("worker", self.workers)

    @property
    def api_names(self) -> tuple[str, ...]:
        """api, api-2 …"""
        return _numbered("api", self.apis)

    @property
    def balanced(self) -> bool:
        """Whether a balancer listens at the register API's address."""
        return self.apis > 1

    @property
    def ports(self) -> tuple[str, ...]:
        """Names of the additional ports, beyond those of a stack with one worker and one API."""
        sdks = _numbered("sdk", self.workers)
        calls = tuple(name + API_PORT_SUFFIX for name in self.api_names) if self.balanced else ()
        return (*self.worker_names[1:], *sdks[1:], *self.api_names[1:], *calls)

    def overrides(self, name: str, ports: Ports) -> dict[str, str]:
        """Return the variables that only this process gets."""
        values: dict[str, str] = {}
        if name in self.worker_names[1:]:
            values["WORKER_METRICS_BIND"] = f"{LOCALHOST}:{ports.others[name]}"
            values["SDK_METRICS_BIND"] = f"{LOCALHOST}:{ports.others[name.replace('worker', 'sdk')]}"
        if name in self.api_names[1:]:
            values["API_METRICS_BIND"] = f"{LOCALHOST}:{ports.others[name]}"
        if name in self.api_names and self.balanced:
            values["REGISTER_API_BIND"] = f"{LOCALHOST}:{ports.others[name + API_PORT_SUFFIX]}"
            values["TRUSTED_PROXIES"] = BALANCER
        return values


def _numbered(name: str, number: int) -> tuple[str, ...]:
    return (name, *(f"{name}-{each}" for each in range(2, number + 1)))
