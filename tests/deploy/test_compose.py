"""Properties of the compose file, read from the file."""

import re
import subprocess
import sys
from importlib.metadata import requires
from typing import Any

import pytest
from packaging.requirements import Requirement

from tests.deploy import compose
from workers.settings.api import ApiSettings
from workers.settings.common import StoreSettings
from workers.settings.worker import WorkerSettings

FILLED = dict.fromkeys(compose.required(), "filled-in")
SERVICES = compose.services(FILLED)
ONCE = {"temporal-schema", "temporal-namespace", "migrate"}
"""One-shot services."""

FIRST = {"postgres", "aws", "codec", "prometheus"}
"""Services without dependencies."""

PUBLIC = {"register-api"}


def test_the_file_matches_the_compose_specification() -> None:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec"]
    result = subprocess.run([*command, str(compose.FILE)], capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_a_service_is_confined(name: str) -> None:
    service = SERVICES[name]
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert set(service["deploy"]["resources"]["limits"]) == {"cpus", "memory"}
    assert service["read_only"] is True
    user, group = map(int, service["user"].split(":"))
    assert user > 0
    assert group > 0


@pytest.mark.parametrize("name", sorted(set(SERVICES) - PUBLIC))
def test_a_service_is_published_on_loopback_only(name: str) -> None:
    assert all(port.startswith("127.0.0.1:") for port in SERVICES[name].get("ports", []))


@pytest.mark.parametrize("name", sorted(set(SERVICES) - ONCE))
def test_a_long_running_service_has_a_health_check(name: str) -> None:
    assert SERVICES[name]["healthcheck"]["test"]
    assert SERVICES[name]["restart"] == "unless-stopped"


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_a_service_waits_for_its_dependencies(name: str) -> None:
    needed = SERVICES[name].get("depends_on", {})
    assert bool(needed) is (name not in FIRST)
    for other, how in needed.items():
        done = "service_completed_successfully"
        assert how["condition"] == (done if other in ONCE else "service_healthy"), f"{name} → {other}"


def test_the_start_order_follows_the_dependencies() -> None:
    order = list(compose.in_order(SERVICES))
    assert order.index("postgres") < order.index("migrate") < order.index("worker")
    assert order.index("temporal-schema") < order.index("temporal-namespace") < order.index("worker")


def test_no_secret_has_a_default() -> None:
    secret = re.compile("PASSWORD|PWD|KEYS|SECRET|TOKEN")
    assert {name for name in compose.required() if secret.search(name)} >= {
        "TEMPORAL_DATABASE_PASSWORD",
        "ONEBOX_DATABASE_PASSWORD",
        "SERVER_KEYS",
    }
    assert all(not text for name, text in compose.defaults().items() if secret.search(name))
    with pytest.raises(compose.Missing):
        compose.services({})


def test_the_example_has_every_required_variable_and_no_secret() -> None:
    given = compose.variables(compose.ROOT / "deploy" / "example.env")
    assert compose.required() <= set(given)
    assert all(not given[name] for name in compose.required())


def test_onebox_gets_only_settings_that_it_reads() -> None:
    known: set[str] = set()
    for settings in (StoreSettings, WorkerSettings, ApiSettings):
        known |= {name.upper() for name in settings.model_fields}
    foreign = re.compile("TEMPORAL_(ADDRESS|NAMESPACE)|AWS_|OTEL_")
    for name in ("migrate", "worker", "register-api"):
        environment: dict[str, Any] = SERVICES[name]["environment"]
        assert {each for each in environment if not foreign.match(each)} <= known, name


@pytest.mark.parametrize("name", ["worker", "register-api"])
def test_settings_outside_the_file_can_be_passed(name: str) -> None:
    assert SERVICES[name]["env_file"] == [{"path": "onebox.env", "required": False}]
    ignored = (compose.ROOT / ".gitignore").read_text().splitlines()
    assert {".env", "onebox.env"} <= set(ignored)


def test_the_image_is_built_with_tools_from_the_lock() -> None:
    def pins(file: str) -> dict[str, str]:
        text = (compose.ROOT / "requirements" / file).read_text()
        return dict(re.findall(r"^([a-z-]+)==(\S+)", text, re.MULTILINE))

    build, development = pins("build.txt"), pins("development.txt")
    assert build
    assert build.items() <= development.items()
    for package in build:  # pip takes nothing that is not pinned: not even what a pinned one needs
        needed = [Requirement(line) for line in requires(package) or []]
        assert {each.name for each in needed if each.marker is None or each.marker.evaluate()} <= set(build)
