"""Invalid settings are named, and the others are still read."""

import pytest

from cli.doctor.model import Process, Status
from cli.doctor.settings import REQUIRED_PROCESSES, default_processes, misspelled_variables, read

USABLE = {
    "DATABASE_URL": "postgresql://onebox:x@db/onebox",
    "SERVER_KEYS": f"k1:{'ab' * 32}",
    "REGISTER_API_URL": "https://api.example",
    "DNS_ZONE_ID": "Z1",
    "DNS_ZONE_NAME": "boxes.example",
    "BOX_IMAGE_ID": "ami-1",
    "BOX_RUNTIME_COMMAND": "run",
}


@pytest.fixture(autouse=True)
def usable(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in USABLE.items():
        monkeypatch.setenv(name, value)


def test_valid_settings_are_read_for_each_process() -> None:
    settings = read(REQUIRED_PROCESSES)
    assert {finding.status for finding in settings.findings} == {Status.OK}
    assert settings.worker is not None
    assert settings.worker.dns_zone_id == "Z1"


def test_an_invalid_variable_is_named_once_and_the_others_are_valid(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SERVER_KEYS", "k1:short")
    monkeypatch.setenv("DATABASE_POOL_SIZE", "many")
    settings = read(REQUIRED_PROCESSES)
    [keys] = [each for each in settings.findings if each.check == "settings.SERVER_KEYS"]
    assert "worker, api" in keys.message
    assert "short" not in keys.message
    assert not settings.usable("SERVER_KEYS")
    assert not settings.usable("BOX_IMAGE_ID", "DATABASE_POOL_SIZE")
    assert settings.worker is not None
    assert (settings.worker.box_image_id, settings.worker.database_pool_size) == ("ami-1", 10)


def test_contradicting_variables_are_both_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEMPORAL_DEPLOYMENT_NAME", "onebox")
    settings = read([Process.WORKER])
    failed = {each.check for each in settings.findings if each.status is Status.FAILED}
    assert failed == {"settings.TEMPORAL_DEPLOYMENT_NAME", "settings.TEMPORAL_WORKER_BUILD_ID"}
    assert settings.worker is not None
    assert settings.worker.dns_zone_id == "Z1"


def test_settings_of_other_processes_are_not_required(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in set(USABLE) - {"DATABASE_URL"}:
        monkeypatch.delenv(name)
    assert {each.status for each in read([Process.MIGRATE]).findings} == {Status.OK}
    assert "settings.DNS_ZONE_ID" in {each.check for each in read([Process.WORKER]).findings}


def test_a_misspelled_variable_is_reported_and_an_unknown_one_is_not() -> None:
    known = ("BOX_SUBNET_IDS", "HEARTBEAT_STALE_SECONDS")
    found = list(
        misspelled_variables(("BOX_SUBNET_ID", "HEARTBEAT_SECONDS", "PATH", "BOX_SUBNET_IDS"), known)
    )
    assert [(each.variables, "BOX_SUBNET_IDS" in each.remedy) for each in found] == [
        (("BOX_SUBNET_ID",), True)
    ]


def test_the_codec_server_is_checked_once_it_is_configured(monkeypatch: pytest.MonkeyPatch) -> None:
    assert default_processes({}) == REQUIRED_PROCESSES
    assert default_processes({"CODEC_TOKEN_HASHES": "ab"}) == REQUIRED_PROCESSES
    assert Process.CODEC in default_processes({"CODEC_TOKEN_HASHES": "ab", "PAYLOAD_KEYS": "k1:cd"})
    monkeypatch.setenv("PAYLOAD_KEYS", "k1:nonsense")
    found = {each.check: each for each in read([Process.WORKER, Process.CODEC]).findings}
    assert "worker, codec" in found["settings.PAYLOAD_KEYS"].message
    assert "settings.CODEC_TOKEN_HASHES" in found
