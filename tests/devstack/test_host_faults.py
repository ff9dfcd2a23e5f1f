"""Host faults of a box: its clock and its disk, as its own Python processes see them."""

import subprocess
import sys
from pathlib import Path

import pytest

from devstack.boxes import HOST_FAULTS_DIR

WRITE = """
import os, sys
path = os.path.join(os.environ["CONFIGS_DIR"], ".auth_token")
with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
    file.write("token")
"""

TELL = "import time; print(int(time.time()), time.strftime('%s', time.gmtime()))"


class Machine:
    """A box's directories and its Python."""

    def __init__(self, directory: Path) -> None:
        self.ailments = directory / "ailments"
        self.configs = directory / "i-1" / "configs"
        for each in (self.ailments, self.configs):
            each.mkdir(parents=True)

    def run(self, program: str) -> subprocess.CompletedProcess[str]:
        environment = {
            "PYTHONPATH": str(HOST_FAULTS_DIR),
            "ONEBOX_AILMENTS": str(self.ailments),
            "CONFIGS_DIR": str(self.configs),
            "TZ": "UTC",
        }
        return subprocess.run(
            [sys.executable, "-c", program], env=environment, check=False, capture_output=True, text=True
        )

    def befell(self) -> set[str]:
        file = self.ailments / "befell"
        return set(file.read_text().splitlines()) if file.exists() else set()


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_a_healthy_machine_keeps_its_token_and_the_time(machine: Machine) -> None:
    assert machine.run(WRITE).returncode == 0
    assert (machine.configs / ".auth_token").read_text() == "token"
    assert machine.befell() == set()


def test_a_full_disk_has_the_file_and_no_room_for_what_is_in_it(machine: Machine) -> None:
    assert machine.run(WRITE).returncode == 0
    (machine.ailments / "full").touch()
    written = machine.run(WRITE)
    assert "OSError: [Errno 28] No space left on device" in written.stderr
    assert (machine.configs / ".auth_token").read_text() == ""
    assert machine.befell() == {"full i-1"}
    (machine.ailments / "full").unlink()
    assert machine.run(WRITE).returncode == 0


def test_a_wall_clock_that_jumped_says_so_everywhere(machine: Machine) -> None:
    [now, _] = machine.run(TELL).stdout.split()
    (machine.ailments / "clock").write_text("86400")
    ahead, shown = (int(text) for text in machine.run(TELL).stdout.split())
    assert ahead - int(now) >= 86_400
    assert shown >= ahead
    assert machine.befell() == {"clock i-1"}
