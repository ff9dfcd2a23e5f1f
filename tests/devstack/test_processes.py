"""Children end with their parent, and their failures show their logs."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from devstack import processes
from devstack.processes import Child, ChildFailed, PortInUse, free_port, port_is_free
from tests.devstack.cloud import PATIENCE_SECONDS, eventually

PARENT = """
import sys, threading
from pathlib import Path
from devstack.processes import Child

child = Child("child", ["sleep", "1000"], log=Path(sys.argv[1]))
thread = threading.Thread(target=child.start)  # which ends long before its child does
thread.start()
thread.join()
print(child.pid, flush=True)
sys.stdin.read()
"""


def alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_a_child_lives_as_long_as_its_parent_and_no_longer(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, str(tmp_path / "log")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        eventually(lambda: psutil.Process(child).name() == "sleep")
        parent.kill()
        parent.wait()
        eventually(lambda: not alive(child))


def test_a_child_that_ends_early_shows_the_end_of_its_log(tmp_path: Path) -> None:
    script = "import sys; sys.exit('the reason')"
    child = Child("failing", [sys.executable, "-c", script], log=tmp_path / "log")
    child.start()
    with pytest.raises(ChildFailed, match=r"failing ended with exit code 1:\nthe reason"):
        child.wait_ready(lambda: False, seconds=PATIENCE_SECONDS)


def test_a_child_that_is_not_ready_in_time_says_so_and_can_be_killed(tmp_path: Path) -> None:
    child = Child("slow", ["sleep", "1000"], log=tmp_path / "log")
    child.start()
    with pytest.raises(ChildFailed, match=r"slow was not ready after 0\.1 s"):
        child.wait_ready(lambda: False, seconds=0.1)
    pid = child.pid
    child.kill()
    assert not alive(pid)
    assert child.exit_code == -signal.SIGKILL


def test_stopping_takes_descendants_along(tmp_path: Path) -> None:
    child = Child("shell", ["sh", "-c", "sleep 1000 & echo $!; wait"], log=tmp_path / "log")
    child.start()
    eventually(lambda: child.log_text().strip().isdecimal())
    descendant = int(child.log_text())
    child.stop()
    assert not alive(descendant)


def test_a_child_is_the_leader_of_a_session_of_its_own(tmp_path: Path) -> None:
    child = Child("leader", ["sleep", "1000"], log=tmp_path / "log")
    child.start()
    assert os.getsid(child.pid) == child.pid != os.getsid(0)
    child.kill()


def test_free_ports_are_free() -> None:
    assert port_is_free(free_port())


def test_a_port_is_given_once_while_the_process_lives_that_it_was_given_to(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    port = free_port()  # not listening yet
    monkeypatch.setattr(processes, "FREE_PORTS", range(port, port + 1))
    with pytest.raises(PortInUse, match="no free port"):
        free_port()
    assert "no free port" in given_to_another(port)


def test_a_port_is_given_again_after_the_end_of_the_process_that_it_was_given_to() -> None:
    def again() -> bool:
        port = given_to_another(0)
        return given_to_another(int(port)) == port

    eventually(again)  # another process may get it first


def given_to_another(port: int) -> str:
    """The port that another process gets, or its error; 0 leaves the choice to it."""
    script = (
        "import sys; from devstack import processes; port = int(sys.argv[1]);"
        " processes.FREE_PORTS = range(port, port + 1) if port else processes.FREE_PORTS;"
        " print(processes.free_port())"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(port)], check=False, capture_output=True, text=True
    )
    return done.stdout.strip() or done.stderr
