"""Invalid settings are refused at the start with the name of the variable."""

import asyncio
from pathlib import Path

import pytest

from workers import wiring
from workers.settings.api import ApiSettings
from workers.settings.common import InvalidSettings, load
from workers.settings.worker import WorkerSettings

KEYED = {"DATABASE_URL": "postgresql://x@127.0.0.1/x", "SERVER_KEYS": f"k1:{'ab' * 32}"}
WORKER = KEYED | {
    "REGISTER_API_URL": "http://127.0.0.1:8080",
    "DNS_ZONE_ID": "Z1",
    "DNS_ZONE_NAME": "boxes.internal",
    "BOX_IMAGE_ID": "ami-1",
    "BOX_RUNTIME_COMMAND": "true",
}


@pytest.fixture(autouse=True)
def _a_bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in WorkerSettings.model_fields.keys() | ApiSettings.model_fields.keys():
        monkeypatch.delenv(name.upper(), raising=False)


def refusal(
    monkeypatch: pytest.MonkeyPatch, kind: type[WorkerSettings | ApiSettings], changed: dict[str, str]
) -> str:
    for name, value in ((WORKER if kind is WorkerSettings else KEYED) | changed).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(InvalidSettings) as refused:
        load(kind)
    return str(refused.value)


@pytest.mark.parametrize("kind", [WorkerSettings, ApiSettings])
def test_every_missing_variable_is_named(
    kind: type[WorkerSettings | ApiSettings], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InvalidSettings) as refused:
        load(kind)
    required = WORKER if kind is WorkerSettings else KEYED
    assert {line.partition(":")[0] for line in str(refused.value).splitlines()} == set(required)


@pytest.mark.parametrize("name", ["WORKER_METRICS_BIND", "SDK_METRICS_BIND", "WORKER_HEALTH_BIND"])
def test_an_invalid_port_is_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert refusal(monkeypatch, WorkerSettings, {name: "127.0.0.1:65536"}).startswith(f"{name}: ")


def test_the_sdks_metrics_address_is_no_host_name(monkeypatch: pytest.MonkeyPatch) -> None:
    message = refusal(monkeypatch, WorkerSettings, {"SDK_METRICS_BIND": "localhost:9465"})
    assert message.startswith("SDK_METRICS_BIND: ")


@pytest.mark.parametrize(
    ("kind", "binds"),
    [
        (WorkerSettings, {"WORKER_METRICS_BIND": "127.0.0.1:9464", "SDK_METRICS_BIND": "127.0.0.1:9464"}),
        (WorkerSettings, {"WORKER_METRICS_BIND": "0.0.0.0:9464", "WORKER_HEALTH_BIND": "127.0.0.1:9464"}),
        (WorkerSettings, {"SDK_METRICS_BIND": "[::]:9464", "WORKER_HEALTH_BIND": "127.0.0.1:9464"}),
        (ApiSettings, {"REGISTER_API_BIND": "0.0.0.0:8080", "API_METRICS_BIND": "127.0.0.1:8080"}),
    ],
)
def test_conflicting_addresses_are_both_named(
    kind: type[WorkerSettings | ApiSettings], binds: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    message = refusal(monkeypatch, kind, binds)
    assert all(name in message for name in binds)


def test_one_port_at_two_addresses_is_no_conflict(monkeypatch: pytest.MonkeyPatch) -> None:
    binds = {"WORKER_METRICS_BIND": "127.0.0.1:9464", "WORKER_HEALTH_BIND": "127.0.0.2:9464"}
    for name, value in (WORKER | binds).items():
        monkeypatch.setenv(name, value)
    assert load(WorkerSettings).worker_health_bind == "127.0.0.2:9464"


def test_an_invalid_profile_is_a_settings_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = tmp_path / "temporal.toml"
    broken.write_text("[profile.default")
    monkeypatch.setenv("TEMPORAL_CONFIG_FILE", str(broken))
    with pytest.raises(InvalidSettings, match=r"^TEMPORAL_"):
        asyncio.run(wiring.connect())
