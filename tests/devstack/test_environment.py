"""A stack ignores the addresses of its caller's shell, and finds its earlier ports and secrets."""

import socket
import stat
from pathlib import Path

import pytest

from devstack.environment import Ports, Secrets, base_environment
from devstack.processes import PortInUse
from devstack.stack import DirectoryInUse, Stack

KEYS = Secrets(server_keys="k1:00", operator_token="token", owner="devstack-test")


def environment(caller: dict[str, str], **settings: str) -> dict[str, str]:
    return base_environment(Ports(), KEYS, caller=caller, settings=settings)


def test_the_callers_aws_temporal_database_and_proxy_are_not_the_stacks() -> None:
    caller = {
        "AWS_PROFILE": "production",
        "AWS_ENDPOINT_URL_EC2": "https://ec2.example",
        "AWS_ACCESS_KEY_ID": "real",
        "TEMPORAL_NAMESPACE": "production",
        "DATABASE_URL": "postgresql://production",
        "PGHOST": "production",
        "HTTPS_PROXY": "http://proxy.example",
        "PATH": "/bin",
    }
    made = environment(caller)
    assert not {"AWS_PROFILE", "AWS_ENDPOINT_URL_EC2", "TEMPORAL_NAMESPACE", "DATABASE_URL"} & set(made)
    assert not {"PGHOST", "HTTPS_PROXY"} & set(made)
    assert (made["AWS_ACCESS_KEY_ID"], made["PATH"]) == ("devstack", "/bin")
    assert made["AWS_ENDPOINT_URL"] == "http://127.0.0.1:4566"


def test_the_caller_may_tune_and_settings_win_over_everything() -> None:
    caller = {"HEARTBEAT_SECONDS": "1", "CANARY": "off", "LOG_FORMAT": "console"}
    made = environment(caller, LOG_FORMAT="json", TEMPORAL_ADDRESS="elsewhere:7233")
    assert (made["HEARTBEAT_SECONDS"], made["CANARY"], made["LOG_FORMAT"]) == ("1", "off", "json")
    assert made["TEMPORAL_ADDRESS"] == "elsewhere:7233"


def test_free_ports_are_those_of_the_last_time_if_they_still_are_free(tmp_path: Path) -> None:
    file = tmp_path / "ports.json"
    first = Ports.chosen(file, free=True)
    assert Ports.chosen(file, free=True) == first
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", first.aws))
        listener.listen()
        second = Ports.chosen(file, free=True)
    assert second.aws != first.aws
    assert second.register_api == first.register_api


def test_a_port_in_use_is_named_with_the_way_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("devstack.environment.port_is_free", lambda port: port != 8080)
    with pytest.raises(PortInUse, match=r"port 8080 \(register api\) is in use .*--free-ports"):
        Ports.chosen(tmp_path / "ports.json", free=False)


def test_secrets_are_made_once_and_are_their_owners_only(tmp_path: Path) -> None:
    file = tmp_path / "secrets.json"
    made = Secrets.load_or_create(file)
    assert Secrets.load_or_create(file) == made
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_two_stacks_cannot_work_with_the_same_data(tmp_path: Path) -> None:
    with (
        Stack(tmp_path, free_ports=True, parts=()),
        pytest.raises(DirectoryInUse),
        Stack(tmp_path, free_ports=True, parts=()),
    ):
        pass


def test_a_temporary_directory_is_gone_with_its_stack() -> None:
    with Stack(free_ports=True, parts=()) as stack:
        assert (stack.state_dir / "secrets.json").exists()
    assert not stack.state_dir.exists()
