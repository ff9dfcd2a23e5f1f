"""The compose file's `dev` profile, outside containers: its services bring a workspace online."""

import hashlib
import os
import pwd
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx2
import pytest

from devstack.aws.cloud import IMAGE_ID, ZONE_ID, ZONE_NAME
from devstack.processes import Child
from devstack.stack import Stack
from tests.deploy import compose
from tests.deploy.test_commands import LOCAL, SECONDS, SLOW, Site, free_ports, run_in_order, until

pytestmark = pytest.mark.timeout(900)
"""A whole stack starts in sequence."""

WORKSPACE = "ws-composed"
OPERATOR_TOKEN = "devstack-operator"

GIVEN = compose.variables(compose.ROOT / "deploy" / "dev.env")
FILE = compose.FILE.read_text()


def test_its_settings_are_those_that_the_compose_file_requires() -> None:
    assert compose.required() <= {name for name, value in GIVEN.items() if value}
    assert set(GIVEN) <= compose.required() | set(compose.defaults())


def test_its_settings_name_the_endpoints_initial_resources() -> None:
    assert (GIVEN["DNS_ZONE_ID"], GIVEN["DNS_ZONE_NAME"], GIVEN["BOX_IMAGE_ID"]) == (
        ZONE_ID,
        ZONE_NAME,
        IMAGE_ID,
    )
    assert GIVEN["OPERATOR_TOKEN_HASHES"] == hashlib.sha256(OPERATOR_TOKEN.encode()).hexdigest()
    assert f"`{OPERATOR_TOKEN}`" in (compose.ROOT / "deploy" / "dev.env").read_text()


def test_without_the_profile_its_services_are_absent() -> None:
    services = compose.services(GIVEN)
    of_dev = {name for name, service in services.items() if "dev" in service.get("profiles", [])}
    assert of_dev == {"aws", "boxes"}
    for name in set(services) - of_dev:
        for other in of_dev & set(services[name].get("depends_on", {})):
            assert services[name]["depends_on"][other]["required"] is False, f"{name} → {other}"
        assert "devstack" not in str(services[name]["image"])
        assert services[name].get("build", {}).get("target", "production") == "production"


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with Stack(free_ports=True, fsync=False, parts=("postgres", "temporal")) as stack:
        database = urlsplit(stack.database_url)
        names = ("api", "aws", "probes", "9464", "9465", "9466", "boxes")
        ports = dict(zip(names, free_ports(len(names)), strict=True))
        addresses = {
            "postgresql://onebox:": "postgresql://composed:",
            "postgres:5432/onebox": f"{LOCAL}:{database.port}/composed",
            "temporal:7233": stack.temporal_address,
            "register-api:8080": f"{LOCAL}:{ports['api']}",
            "0.0.0.0:8080": f"{LOCAL}:{ports['api']}",
            "127.0.0.1:8080": f"{LOCAL}:{ports['api']}",
            "0.0.0.0:8081": f"{LOCAL}:{ports['probes']}",
            "127.0.0.1:8081": f"{LOCAL}:{ports['probes']}",
            "aws:4566": f"{LOCAL}:{ports['aws']}",
            "127.0.0.1:4566": f"{LOCAL}:{ports['aws']}",
            **{f"0.0.0.0:{there}": f"{LOCAL}:{ports[there]}" for there in ("9464", "9465", "9466")},
        }
        filled = GIVEN | {
            "TEMPORAL_DATABASE_PASSWORD": str(database.password),
            "TEMPORAL_NAMESPACE": "composed",
        }
        yield Site(
            stack=stack,
            services=compose.services(filled),
            addresses=addresses,
            words={
                "0.0.0.0": LOCAL,
                "4566": str(ports["aws"]),
                "/state/aws": str(tmp_path / "aws"),
                "/state": str(tmp_path / "boxes"),
            },
            # In a container, the boxes' ports and processes do not conflict with other programs.
            also={
                "worker": {
                    "BOX_RUNTIME_PORT": str(ports["boxes"]),
                    "BOX_RUNTIME_USER": pwd.getpwuid(os.geteuid()).pw_name,
                }
            },
            directory=tmp_path,
        )


@pytest.mark.slow
def test_a_workspace_comes_online_on_its_services(site: Site) -> None:
    running: dict[str, Child] = {}
    try:
        ran = run_in_order(site, running)
        assert ran >= {"aws", "boxes", "worker", "register-api"}
        _start_workspace(site)
        record = f"http://{site.here('register-api:8080')}/workspaces/{WORKSPACE}"
        headers = {"Authorization": f"Bearer {OPERATOR_TOKEN}"}

        def online() -> bool:
            answer = httpx2.get(record, headers=headers, trust_env=False, timeout=SECONDS)
            return answer.status_code == 200 and answer.json()["phase"] == "online"

        until(online)
        for name in ("boxes", "aws"):
            grace = float(site.services[name]["stop_grace_period"].removesuffix("s"))
            os.kill(running[name].pid, signal.SIGTERM)
            assert running[name].wait(seconds=grace), f"{name} did not end within its grace period"
            assert running[name].exit_code == 0, running[name].tail()
    finally:
        for child in running.values():
            child.kill()


def _start_workspace(site: Site) -> None:
    """Run the command of the README."""
    cli = Path(sys.executable).with_name("temporal")
    environment = {
        "PATH": os.environ["PATH"],
        "TEMPORAL_ADDRESS": site.here("temporal:7233"),
        "TEMPORAL_NAMESPACE": "composed",
    }
    words = ("--type", "WorkspaceWorkflow", "--task-queue", "workspaces", "--workflow-id", WORKSPACE)
    command = [str(cli), "workflow", "start", *words, "--input", "{}"]

    def started() -> bool:
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        # A call that timed out may have succeeded.
        heard = "already" in done.stderr
        assert done.returncode == 0 or heard or SLOW.search(done.stderr), done.stderr
        return done.returncode == 0 or heard

    until(started)
