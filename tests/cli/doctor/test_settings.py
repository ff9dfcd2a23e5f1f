"""Invalid settings are named, and the others are still read."""

import pytest

from cli.doctor.model import Process
from cli.doctor.settings import REQUIRED_PROCESSES, default_processes, read

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


def test_the_codec_server_is_checked_once_it_is_configured(monkeypatch: pytest.MonkeyPatch) -> None:
    assert default_processes({}) == REQUIRED_PROCESSES
    assert default_processes({"CODEC_TOKEN_HASHES": "ab"}) == REQUIRED_PROCESSES
    assert Process.CODEC in default_processes({"CODEC_TOKEN_HASHES": "ab", "PAYLOAD_KEYS": "k1:cd"})
    monkeypatch.setenv("PAYLOAD_KEYS", "k1:nonsense")
    found = {each.check: each for each in read([Process.WORKER, Process.CODEC]).findings}
    assert "worker, codec" in found["settings.PAYLOAD_KEYS"].message
    assert "settings.CODEC_TOKEN_HASHES" in found
