"""Settings that can't be used are named, and the others are read all the same."""

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


def test_usable_settings_are_read_for_each_process() -> None:
    reading = read(REQUIRED_PROCESSES)
    assert {finding.status for finding in reading.findings} == {Status.OK}
    assert reading.worker is not None
    assert reading.worker.dns_zone_id == "Z1"


def test_one_wrong_variable_is_named_once_for_all_who_need_it_and_the_rest_is_of_use(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SERVER_KEYS", "k1:short")
    monkeypatch.setenv("DATABASE_POOL_SIZE", "many")
    reading = read(REQUIRED_PROCESSES)
    [keys] = [each for each in reading.findings if each.check == "settings.SERVER_KEYS"]
    assert "worker, api" in keys.message
    assert "short" not in keys.message
    assert not reading.usable("SERVER_KEYS")
    assert not reading.usable("BOX_IMAGE_ID", "DATABASE_POOL_SIZE")
    assert reading.worker is not None
    assert (reading.worker.box_image_id, reading.worker.database_pool_size) == ("ami-1", 10)


def test_two_variables_that_contradict_each_other_are_both_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEMPORAL_DEPLOYMENT_NAME", "onebox")
    reading = read([Process.WORKER])
    failed = {each.check for each in reading.findings if each.status is Status.FAILED}
    assert failed == {"settings.TEMPORAL_DEPLOYMENT_NAME", "settings.TEMPORAL_WORKER_BUILD_ID"}
    assert reading.worker is not None
    assert reading.worker.dns_zone_id == "Z1"


def test_what_another_process_needs_is_not_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in set(USABLE) - {"DATABASE_URL"}:
        monkeypatch.delenv(name)
    assert {each.status for each in read([Process.MIGRATE]).findings} == {Status.OK}
    assert "settings.DNS_ZONE_ID" in {each.check for each in read([Process.WORKER]).findings}


def test_a_variable_that_looks_like_a_setting_is_pointed_at_and_a_stranger_is_not() -> None:
    known = ("BOX_SUBNET_IDS", "HEARTBEAT_STALE_SECONDS")
    found = list(
        misspelled_variables(("BOX_SUBNET_ID", "HEARTBEAT_SECONDS", "PATH", "BOX_SUBNET_IDS"), known)
    )
    assert [(each.variables, "BOX_SUBNET_IDS" in each.remedy) for each in found] == [
        (("BOX_SUBNET_ID",), True)
    ]


def test_a_codec_server_is_looked_at_once_it_is_set_up(monkeypatch: pytest.MonkeyPatch) -> None:
    assert default_processes({}) == REQUIRED_PROCESSES
    assert default_processes({"CODEC_TOKEN_HASHES": "ab"}) == REQUIRED_PROCESSES
    assert Process.CODEC in default_processes({"CODEC_TOKEN_HASHES": "ab", "PAYLOAD_KEYS": "k1:cd"})
    monkeypatch.setenv("PAYLOAD_KEYS", "k1:nonsense")
    found = {each.check: each for each in read([Process.WORKER, Process.CODEC]).findings}
    assert "worker, codec" in found["settings.PAYLOAD_KEYS"].message
    assert "settings.CODEC_TOKEN_HASHES" in found
