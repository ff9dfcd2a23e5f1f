"""Runs the compose file's commands outside containers: entry points, settings, order, probes."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import httpx2
import pytest

from devstack.aws.client import AwsEndpoint
from devstack.postgres import binary
from devstack.processes import Child, free_port
from devstack.stack import Stack
from tests.deploy import compose

SECONDS = 120.0
PASSWORD = "0123456789abcdef"
LOCAL = "127.0.0.1"

SLOW = re.compile("deadline exceeded|unavailable|already exists", re.IGNORECASE)
"""Errors of the Temporal CLI after a timeout, or when the first attempt had succeeded."""

PATH = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
"""PATH with the Temporal CLI of the development packages."""


pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
"""A dozen processes start one after the other, each of which may take long on a busy machine."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """The running third-party services, and the local addresses for those in the file."""

    stack: Stack
    services: Mapping[str, compose.Service]
    addresses: Mapping[str, str]
    directory: Path
    words: Mapping[str, str] = field(default_factory=dict)
    """Replacements for whole arguments of its commands."""
    also: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """Additional environment of a service outside a container."""

    def environment(self, name: str) -> dict[str, str]:
        """The environment that the file gives the service, and nothing else."""
        given = self.services[name].get("environment", {}).items()
        told = {key: self.here(str(value)) for key, value in given}
        return {"PATH": PATH, **told, **self.also.get(name, {})}

    def here(self, text: str) -> str:
        for there, address in self.addresses.items():
            text = text.replace(there, address)
        return text

    def script(self, name: str, **more: str) -> subprocess.CompletedProcess[str]:
        """Run the script of a one-shot service, with retries as in the file."""
        policy, _, times = self.services[name]["restart"].partition(":")
        assert policy == "on-failure"
        for _ in range(int(times)):
            result = self._script(name, **more)
            if result.returncode == 0 or not SLOW.search(result.stderr):
                return result
        return self._script(name, **more)

    def _script(self, name: str, **more: str) -> subprocess.CompletedProcess[str]:
        [mount] = [each for each in self.services[name]["volumes"] if each.startswith("./deploy/")]
        file = compose.ROOT / mount.split(":")[0]
        environment = self.environment(name) | more
        return subprocess.run(["/bin/sh", str(file)], env=environment, capture_output=True, text=True)

    def process(self, name: str) -> Child:
        service = self.services[name]
        entrypoint = service.get("entrypoint", ["python", "-m", "cli"])
        assert entrypoint[0] == "python"
        words = [self.words.get(word, self.here(word)) for word in service["command"]]
        command = [sys.executable, *entrypoint[1:], *words]
        log = self.directory / f"{name}.log"
        return Child(name, command, log=log, environment=self.environment(name))

    def healthy(self, name: str) -> bool:
        """The result of the service's health check."""
        kind, program, *words = self.services[name]["healthcheck"]["test"]
        assert (kind, program) == ("CMD", "python")
        command = [sys.executable, *map(self.here, words)]
        return subprocess.run(command, capture_output=True).returncode == 0

    def until_healthy(self, name: str, child: Child) -> None:
        child.wait_ready(lambda: self.healthy(name), seconds=SECONDS)


def free_ports(number: int) -> Iterator[int]:
    """Distinct free ports; nothing listens on them yet."""
    ports: set[int] = set()
    while len(ports) < number:
        ports.add(free_port())
    return iter(ports)


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.1)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with Stack(free_ports=True, fsync=False, parts=("postgres", "temporal", "aws")) as stack:
        with AwsEndpoint(stack.aws_url) as endpoint:
            info = endpoint.info()
        filled = dict.fromkeys(compose.required(), "unused") | {
            "TEMPORAL_DATABASE_PASSWORD": str(urlsplit(stack.database_url).password),
            "ONEBOX_DATABASE_PASSWORD": PASSWORD,
            "SERVER_KEYS": f"k1:{'ab' * 32}",
            "TEMPORAL_NAMESPACE": "composed",
            "REGISTER_API_URL": "http://register-api.example:8080",
            "DNS_ZONE_ID": info.hosted_zone_id,
            "DNS_ZONE_NAME": info.hosted_zone_name,
            "BOX_IMAGE_ID": info.image_id,
            "BOX_RUNTIME_COMMAND": "true",
            "AWS_ENDPOINT_URL": stack.aws_url,
            "AWS_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
        }
        api, probes, *metrics = free_ports(5)
        port = urlsplit(stack.database_url).port
        # The stack's database and role already have the names that the script creates.
        addresses = {
            "postgresql://onebox:": "postgresql://composed:",
            "postgres:5432/onebox": f"{LOCAL}:{port}/composed",
            "temporal:7233": stack.temporal_address,
            "0.0.0.0:8080": f"{LOCAL}:{api}",
            "127.0.0.1:8080": f"{LOCAL}:{api}",
            "0.0.0.0:8081": f"{LOCAL}:{probes}",
            "127.0.0.1:8081": f"{LOCAL}:{probes}",
            **{
                f"0.0.0.0:{there}": f"{LOCAL}:{here}"
                for there, here in zip((9464, 9465, 9466), metrics, strict=True)
            },
        }
        directory = tmp_path_factory.mktemp("composed")
        yield Site(stack=stack, services=compose.services(filled), addresses=addresses, directory=directory)


def test_its_commands_run_in_order_with_its_settings_and_end_in_time(site: Site) -> None:
    running: dict[str, Child] = {}
    try:
        ran = run_in_order(site, running, without={"aws", "boxes"})
        assert ran == {"postgres", "temporal-namespace", "migrate", "worker", "register-api"}
        _the_database_may_go_away(site, running)
        for name, child in running.items():
            grace = float(site.services[name]["stop_grace_period"].removesuffix("s"))
            os.kill(child.pid, signal.SIGTERM)
            assert child.wait(seconds=grace), f"{name} did not end within its grace period"
            assert child.exit_code == 0, child.tail()
    finally:
        for child in running.values():
            child.kill()


def run_in_order(site: Site, running: dict[str, Child], *, without: Collection[str] = ()) -> set[str]:
    """Start the services in the file's order; return those that can run here."""
    wanted = [name for name in compose.in_order(site.services) if name not in without]
    return {name for name in wanted if _run(site, name, running)}


def _run(site: Site, name: str, running: dict[str, Child]) -> bool:
    """Run the service; return False if it needs a container."""
    match name:
        case "postgres":
            _own_database(site)
        case "temporal-namespace":
            for _ in range(2):  # safe to run again
                result = site.script(name)
                assert result.returncode == 0, result.stderr
        case "migrate":
            child = site.process(name)
            child.start()
            assert child.wait(seconds=SECONDS)
            assert child.exit_code == 0, child.tail()
        case "worker" | "register-api" | "aws" | "boxes":
            running[name] = child = site.process(name)
            child.start()
            site.until_healthy(name, child)
        case _:
            return False
    return True


def _own_database(site: Site) -> None:
    """Run the init script of PostgreSQL's image with the server's psql and another database name."""
    bin_dir = site.directory / "bin"
    bin_dir.mkdir()
    (bin_dir / "psql").symlink_to(binary("psql"))
    url = urlsplit(site.stack.database_url)
    script = (compose.ROOT / "deploy" / "onebox-database.sh").read_text()
    text = script.replace("onebox LOGIN", "composed LOGIN").replace(
        "onebox OWNER onebox", "composed OWNER composed"
    )
    environment = {
        **site.environment("postgres"),
        "POSTGRES_USER": str(url.username),
        "PATH": f"{bin_dir}:{PATH}",
        "PGHOST": LOCAL,
        "PGPORT": str(url.port),
        "PGPASSWORD": str(url.password),
        "PGDATABASE": "postgres",
    }
    result = subprocess.run(["/bin/sh", "-c", text], env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def _unhealthy(site: Site, name: str) -> bool:
    return not site.healthy(name)


def _the_database_may_go_away(site: Site, running: Mapping[str, Child]) -> None:
    """Check that readiness fails, liveness does not, and readiness recovers."""
    site.stack.stop("postgres")
    for name in running:
        until(partial(_unhealthy, site, name))
        probe = site.services[name]["healthcheck"]["test"][-1].split("'")[1].replace("/readyz", "/healthz")
        assert httpx2.get(site.here(probe), trust_env=False, timeout=SECONDS).status_code == 200
    site.stack.start("postgres")
    for name, child in running.items():
        site.until_healthy(name, child)
