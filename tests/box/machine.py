"""A machine that runs user data: its processes can be killed, its configs directory is kept."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil

from activities.user_data.render import fill_secret, render_template

RUNTIME = """
import json, os, signal, sys, time
token = open(os.environ["CONFIGS_DIR"] + "/.auth_token").read()
with open(sys.argv[1], "a") as journal:
    journal.write(json.dumps({"pid": os.getpid(), "token": token, "environ": dict(os.environ)}) + "\\n")
time.sleep(600)
"""
SECONDS = 90.0
"""An idle machine needs a second; a busy one may pause a process for several."""

CALL_SECONDS = 60.0
"""Timeout of the script under test: long, so that a slow response is not lost and calls can be counted."""


def impatient(script: str, **constants: float) -> str:
    """The script with other constants, and otherwise unchanged."""
    for name, seconds in constants.items():
        script, found = re.subn(rf"(?m)^{name} = .*$", f"{name} = {seconds}", script)
        assert found == 1, name
    return script


def wait_until(condition: Callable[[], object], what: str) -> None:
    """Poll until the condition holds; fail after `SECONDS`."""
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"timed out waiting for {what}"
        time.sleep(0.02)


def ended(pid: int) -> bool:
    """Whether a process is gone or a zombie."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


class Machine:
    """One instance with the user data of one generation; `boot` may be called again after `kill`."""

    def __init__(
        self,
        directory: Path,
        *,
        url: str,
        secret: str,
        generation: int = 2,
        data_dir: str = "",
        device: Path | None = None,
        commands: Path | None = None,
        configs: Path | None = None,
        user: str = "",
        command: str | None = None,
    ) -> None:
        """`commands` is a directory of programs that precede the system's in PATH.

        `command` replaces the runtime that writes the journal.
        """
        self._device = device
        self._commands = commands
        self.configs = configs or directory / "configs"
        self.journal = directory / "journal"
        self.off = directory / "powered-off"
        self.log = directory / "log"
        self._script = directory / "user-data"
        runtime = directory / "runtime.py"
        runtime.write_text(RUNTIME)
        template = render_template(
            workspace_id="ws-1",
            generation=generation,
            register_api_url=url,
            runtime_command=command or f"'{sys.executable}' '{runtime}' '{self.journal}'",
            runtime_user=user,
            runtime_port=8000,
            configs_dir=str(self.configs),
            data_dir=data_dir,
        )
        self._script.write_text(impatient(fill_secret(template, secret), CALL_SECONDS=CALL_SECONDS))
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def process(self) -> subprocess.Popen[bytes]:
        assert self._process is not None
        return self._process

    def boot(self) -> None:
        """Execute the user data."""
        environ = {
            "PATH": os.pathsep.join(filter(None, [str(self._commands or ""), os.environ["PATH"]])),
            "ONEBOX_FOREGROUND": "1",
            "ONEBOX_WATCH_SECONDS": "0.2",
            "ONEBOX_POWER_OFF_COMMAND": f"touch '{self.off}'",
            "ONEBOX_BOX_IP": "127.0.0.1",
            **({"ONEBOX_DATA_DEVICE": str(self._device)} if self._device is not None else {}),
        }
        with self.log.open("ab") as log:
            self._process = subprocess.Popen([sys.executable, str(self._script)], env=environ, stderr=log)

    def kill(self) -> None:
        """Send SIGKILL to the script only."""
        self.process.kill()
        self.process.wait()

    def shut_down(self) -> None:
        """End all processes."""
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)
            self._process.wait(SECONDS)

    @property
    def token(self) -> str | None:
        try:
            return (self.configs / ".auth_token").read_text()
        except FileNotFoundError:
            return None

    def runtimes(self) -> list[dict[str, object]]:
        """Every runtime that was started, with its environment and the token that it read."""
        text = self.journal.read_text() if self.journal.exists() else ""
        # The last line may be incomplete.
        return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]

    def running(self) -> list[int]:
        """The process IDs of the runtimes that are alive."""
        pids = [pid for pid in (one["pid"] for one in self.runtimes()) if isinstance(pid, int)]
        return [pid for pid in pids if not ended(pid)]

    def logged(self, text: str) -> bool:
        return self.log.exists() and text in self.log.read_text()
