"""The box script as a process, against a fake register API."""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from activities.user_data import box_base, onebox_box
from tests.box.machine import SECONDS, Machine, wait_until
from tests.box.registry import Registry

SECRET = "ob1.k1.2." + "s" * 43


@pytest.fixture
def registry() -> Iterator[Registry]:
    with Registry(SECRET) as running:
        yield running


@pytest.fixture
def machine(tmp_path: Path, registry: Registry) -> Iterator[Machine]:
    machine = Machine(tmp_path, url=registry.url, secret=SECRET)
    yield machine
    machine.shut_down()


def serving(machine: Machine, registry: Registry) -> None:
    """Wait for one runtime that holds the live token."""
    wait_until(
        lambda: len(machine.running()) == 1 and machine.runtimes()[-1]["token"] == registry.token,
        "a runtime with the live token",
    )


def test_a_box_gets_a_token_writes_it_and_starts_the_runtime(machine: Machine, registry: Registry) -> None:
    machine.boot()
    serving(machine, registry)
    assert machine.token == registry.token
    assert (machine.configs / ".auth_token").stat().st_mode & 0o777 == 0o600
    assert sorted(path.name for path in machine.configs.iterdir()) == [
        ".auth_token",
        ".auth_token.generation",
    ]
    [call] = registry.registers()
    assert (call.secret, call.body) == (SECRET, {"id": "ws-1", "url": ""})
    environ = machine.runtimes()[0]["environ"]
    assert isinstance(environ, dict)
    assert environ["WORKSPACE_ID"] == "ws-1"
    assert environ["PLATFORM_URL"] == registry.url
    assert environ["CONFIGS_DIR"] == str(machine.configs)
    assert environ["RUNTIME_PORT"] == "8000"
    assert environ["ONEBOX_BOX_IP"] == "127.0.0.1"
    assert SECRET not in str(environ)


@pytest.mark.parametrize("fault", [503, 500, 429, 408])
def test_whatever_fails_for_a_while_is_tried_again(machine: Machine, registry: Registry, fault: int) -> None:
    registry.faults.append(fault)
    machine.boot()
    serving(machine, registry)
    assert len(registry.registers()) == 2


def test_a_box_killed_before_it_wrote_its_token_comes_back(machine: Machine, registry: Registry) -> None:
    registry.faults.append("hold")
    machine.boot()
    assert registry.reached.wait(SECONDS)
    machine.kill()
    assert machine.token is None
    minted = registry.token
    machine.boot()
    serving(machine, registry)
    assert machine.token == minted


def test_a_box_that_has_no_room_for_its_token_keeps_it_until_there_is(
    machine: Machine, registry: Registry
) -> None:
    in_the_way = machine.configs
    in_the_way.touch()
    machine.boot()
    wait_until(lambda: machine.logged("the token cannot be written"), "a token without room")
    assert not machine.runtimes()
    in_the_way.unlink()
    serving(machine, registry)
    assert len(registry.registers()) == 1


def test_a_superseded_box_without_room_for_its_token_powers_off(machine: Machine, registry: Registry) -> None:
    machine.configs.touch()
    machine.boot()
    wait_until(lambda: machine.logged("the token cannot be written"), "a token without room")
    registry.status = "superseded"
    wait_until(machine.off.exists, "the end of the box")


def test_a_box_killed_after_it_wrote_its_token_comes_back_without_doubling(
    machine: Machine, registry: Registry
) -> None:
    machine.boot()
    serving(machine, registry)
    minted = registry.token
    machine.kill()
    wait_until(lambda: not machine.running(), "the end of the runtime of a killed script")
    machine.boot()
    serving(machine, registry)
    assert machine.token == minted == registry.registers()[-1].bearer
    assert registry.registers()[-1].secret == SECRET


@pytest.mark.parametrize("owner", ["ws-1 1\n", "ws-2 2\n", ""])
def test_a_token_of_another_generation_or_workspace_is_wiped(
    machine: Machine, registry: Registry, owner: str
) -> None:
    machine.configs.mkdir()
    (machine.configs / ".auth_token").write_text("inherited")
    (machine.configs / ".auth_token.generation").write_text(owner)
    registry.over = None
    registry.faults.append("hold")
    machine.boot()
    assert registry.reached.wait(SECONDS)
    assert machine.token is None
    assert registry.registers()[0].bearer == SECRET


def test_a_stale_token_of_this_generation_is_replaced(machine: Machine, registry: Registry) -> None:
    machine.configs.mkdir()
    (machine.configs / ".auth_token").write_text("stale")
    (machine.configs / ".auth_token.generation").write_text("ws-1 2\n")
    machine.boot()
    serving(machine, registry)
    assert [call.bearer for call in registry.registers()] == ["stale"]


@pytest.mark.parametrize("status", [410, 401, 404])
def test_an_answer_that_may_be_a_mistake_does_not_power_off(
    machine: Machine, registry: Registry, status: int
) -> None:
    registry.faults.append(status)  # without the action `shutdown` the platform did not confirm it
    machine.boot()
    wait_until(lambda: machine.logged(f"answered {status}"), "the answer in the log")
    assert machine.process.poll() is None
    assert not machine.off.exists()


@pytest.mark.parametrize("status", ["superseded", "stopped", "deleting"])
def test_a_box_that_is_over_stops_its_runtime_and_powers_off(
    machine: Machine, registry: Registry, status: str
) -> None:
    machine.boot()
    serving(machine, registry)
    registry.status = status
    assert machine.process.wait(SECONDS) == 0
    assert machine.off.exists()
    assert machine.running() == []


def test_a_token_that_the_runtime_wrote_itself_is_kept(machine: Machine, registry: Registry) -> None:
    machine.boot()
    serving(machine, registry)
    # The script may check at any moment between these lines, so the old token stays valid meanwhile.
    registry.retiring = registry.token
    registry.token = "successor"
    new = machine.configs / "new"
    new.write_text("successor")
    new.rename(machine.configs / ".auth_token")
    wait_until(
        lambda: "successor" in {call.bearer for call in registry.states()}, "a check with the successor"
    )
    registry.retiring = None
    seen = len(registry.states())
    wait_until(lambda: len(registry.states()) > seen + 1, "two more checks")
    assert registry.states()[-1].bearer == "successor"
    assert len(machine.runtimes()) == 1


def test_an_unavailable_or_refusing_platform_changes_nothing(machine: Machine, registry: Registry) -> None:
    machine.boot()
    serving(machine, registry)
    registry.secret = "another"  # set first: a box with a valid secret would replace its refused token
    registry.token = "another"
    seen = len(registry.states())
    wait_until(lambda: len(registry.states()) > seen + 3, "more checks")
    assert len(machine.runtimes()) == len(machine.running()) == 1


def test_a_runtime_that_dies_is_started_again(machine: Machine, registry: Registry) -> None:
    machine.boot()
    serving(machine, registry)
    [pid] = machine.running()
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: len(machine.runtimes()) == 2, "a second runtime")
    assert len(registry.registers()) == 1


def test_the_log_says_what_happens_and_no_secret(machine: Machine, registry: Registry) -> None:
    registry.faults.append(503)
    machine.boot()
    serving(machine, registry)
    registry.token = None
    wait_until(lambda: len(machine.runtimes()) == 2, "a second runtime")
    serving(machine, registry)
    log = machine.log.read_text()
    for text in ("register answered 503", "token received", "runtime started", "the token is lost"):
        assert text in log
    for one in machine.runtimes():
        assert str(one["token"]) not in log
    assert SECRET not in log


def test_a_runtime_that_ignores_sigterm_is_killed_with_its_children(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onebox_box, "STOP_SECONDS", 0.1)
    ready = tmp_path / "ready"
    script = (
        "import os, pathlib, signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); os.fork();"
        f" pathlib.Path({str(ready)!r}).touch(); time.sleep(600)"
    )
    parameters: dict[str, object] = {
        "workspace_id": "ws-1", "generation": 1, "bootstrap_secret": SECRET, "platform_url": "http://x",
        "runtime_command": f"{sys.executable} -c \"{script}\"", "runtime_user": "", "runtime_port": 1,
        "configs_dir": str(tmp_path),
    }  # fmt: skip
    runtime = onebox_box.Runtime(box_base.Box(parameters, {}))
    runtime.start()
    assert runtime.process is not None
    group = runtime.process.pid
    wait_until(ready.exists, "the runtime")
    runtime.stop()
    wait_until(lambda: not _group_lives(group), "the end of the whole group")


def _group_lives(group: int) -> bool:
    for process in psutil.process_iter():
        with suppress(ProcessLookupError, psutil.NoSuchProcess):
            if os.getpgid(process.pid) == group and process.status() != psutil.STATUS_ZOMBIE:
                return True
    return False


def test_a_command_that_cannot_be_started_is_tried_again(tmp_path: Path) -> None:
    parameters: dict[str, object] = {
        "workspace_id": "ws-1", "generation": 1, "bootstrap_secret": SECRET, "platform_url": "http://x",
        "runtime_command": str(tmp_path / "missing"), "runtime_user": "", "runtime_port": 1,
        "configs_dir": str(tmp_path),
    }  # fmt: skip
    runtime = onebox_box.Runtime(box_base.Box(parameters, {}))
    runtime.tend()
    assert runtime.process is None
    assert runtime.failures == 1
    runtime.start_at = 0.0
    runtime.tend()
    assert runtime.failures == 2
