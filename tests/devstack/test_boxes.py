"""Each running instance has a process, which ends with the instance."""

import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from devstack.aws.client import AwsEndpoint
from devstack.boxes import BoxView, read_boxes
from devstack.processes import Child, free_port
from tests.devstack.cloud import Clients, endpoint_process, eventually, launch, listed, wait_for_endpoint

SCRIPT = """#!/usr/bin/env python3
import os, pathlib, shlex, subprocess, time
configs = pathlib.Path(os.environ["CONFIGS_DIR"])
with (configs / "starts").open("a") as starts:
    starts.write(os.environ["ONEBOX_BOX_IP"] + "\\n")
assert "SERVER_KEYS" not in os.environ
while not (configs / "off").exists():
    time.sleep(0.05)
subprocess.check_call(shlex.split(os.environ["ONEBOX_POWER_OFF_COMMAND"]))
"""


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """An endpoint at which no other test launches instances."""
    port = free_port()
    process = endpoint_process(tmp_path_factory.mktemp("aws"), port)
    process.start()
    try:
        yield wait_for_endpoint(process, port)
    finally:
        process.stop()


@pytest.fixture
def host(tmp_path: Path, url: str) -> Iterator[Child]:
    child = Child(
        "boxes",
        [sys.executable, "-m", "devstack.boxes", "--aws", url, "--dir", str(tmp_path)],
        log=tmp_path / "host.log",
        environment=dict(os.environ) | {"SERVER_KEYS": "secret"},
    )
    child.start()
    try:
        yield child
    finally:
        child.stop()


def box(directory: Path, workspace: str, *, other_than: int = 0) -> BoxView:
    found: list[BoxView] = []

    def there() -> bool:
        found[:] = [b for b in read_boxes(directory) if b.workspace == workspace and b.pid != other_than]
        return bool(found) and starts(found[0]) != []

    eventually(there)
    return found[0]


def starts(view: BoxView) -> list[str]:
    """The address that each start wrote; the file exists a moment before its first line."""
    file = Path(view.configs) / "starts"
    return file.read_text().split() if file.exists() else []


def ended(pid: int) -> bool:
    """An orphan is reaped whenever its new parent does so."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_a_killed_box_comes_back_with_its_files_and_ends_with_its_host(
    tmp_path: Path, url: str, connect: Callable[[str], Clients], host: Child
) -> None:
    clients = connect(url)
    launch(clients, "back", "back-1", user_data=SCRIPT)
    first = box(tmp_path, "back")
    os.kill(first.pid, signal.SIGKILL)
    second = box(tmp_path, "back", other_than=first.pid)
    eventually(lambda: len(starts(second)) == 2)
    assert second.starts == 2
    host.stop()
    assert ended(second.pid)
    clients.ec2.terminate_instances(InstanceIds=[second.instance_id])


def test_a_box_that_powers_itself_off_takes_its_instance_along(
    tmp_path: Path, url: str, connect: Callable[[str], Clients], host: Child
) -> None:
    clients = connect(url)
    launch(clients, "off", "off-1", user_data=SCRIPT)
    view = box(tmp_path, "off")
    (Path(view.configs) / "off").touch()
    eventually(lambda: bool(listed(clients, "off", "terminated")))
    eventually(lambda: ended(view.pid))
    with AwsEndpoint(url) as endpoint:
        assert endpoint.counts("off").terminations == 1
