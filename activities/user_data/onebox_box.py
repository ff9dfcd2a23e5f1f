#!/usr/bin/env python3
"""The bootstrap script of a box: mounts the data volume, registers, runs the runtime, powers off on order.

It is the user data of an instance: one file, Python 3.8, standard library only, under 16 KB compressed.
`render` puts the parts that it imports into the file.
It never logs a secret. Only the platform decides that the box is superseded.
"""

from __future__ import annotations

import contextlib
import ctypes
import http.client
import json
import os
import pwd
import shlex
import signal
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import NoReturn
from urllib.parse import urlsplit

from activities.user_data.box_base import Box, ShutDown, backoff, jittered, log
from activities.user_data.box_files import TokenFile
from activities.user_data.box_volume import mount_volume

PARAMETERS = "{}"

CALL_SECONDS = 10.0
SLOW_SECONDS = 60.0  # retry delay after an error that needs an operator, such as a wrong key or ID
STOP_SECONDS = 10.0
STEADY_SECONDS = 60.0  # a runtime that ran this long resets the restart backoff
POLL_SECONDS = 0.5
SHUTDOWN_STATUSES = ("superseded", "stopping", "stopped", "deleting", "deleted")
INSTALLED = Path("/opt/onebox/onebox_box.py")
UNIT = Path("/etc/systemd/system/onebox-box.service")
PR_SET_PDEATHSIG = 1


def call(
    box: Box, method: str, path: str, headers: dict[str, str], body: dict[str, object] | None = None
) -> tuple[int, dict[str, object], str]:
    """Status, JSON body and Retry-After of the response; status 0 if there was no valid one."""
    url = urlsplit(box.platform_url)
    source = (box.address, 0) if box.address else None
    host = url.hostname or ""
    if url.scheme == "https":
        connection: http.client.HTTPConnection = http.client.HTTPSConnection(
            host, url.port, timeout=CALL_SECONDS, source_address=source, context=ssl.create_default_context()
        )
    else:
        connection = http.client.HTTPConnection(host, url.port, timeout=CALL_SECONDS, source_address=source)
    try:
        text = None if body is None else json.dumps(body).encode()
        if text is not None:
            headers = dict(headers, **{"Content-Type": "application/json"})
        connection.request(method, url.path + path, text, headers)
        response = connection.getresponse()
        data = json.loads(response.read(1 << 20) or b"{}")
        return (
            response.status,
            data if isinstance(data, dict) else {},
            response.getheader("Retry-After") or "",
        )
    except (OSError, http.client.HTTPException, ValueError) as error:
        log(f"{method} {path} failed: {type(error).__name__}")
        return 0, {}, ""
    finally:
        connection.close()


def register(box: Box, stored: str | None) -> str:
    """Register, with retries, and return the token to use. The call also tries the `stored` token."""
    failures = 0
    while True:
        headers = {"Authorization": "Bearer " + (stored or box.secret), "X-Bootstrap-Token": box.secret}
        # No URL and no agent card: the runtime reports its own, and an empty URL keeps the stored one.
        status, response, retry_after = call(
            box, "POST", "/registry/register", headers, {"id": box.workspace_id, "url": ""}
        )
        token = response.get("auth_token") or stored
        if status == 200 and isinstance(token, str) and token:
            log("registered, token " + ("kept" if token == stored else "received"))
            return token
        if status == 410 and response.get("action") == "shutdown":
            raise ShutDown(str(response.get("code")))
        # Also after 401: a misconfigured platform must not make the right box give up.
        transient = status in (0, 200, 408, 425, 429) or status >= 500
        wait = backoff(failures) if transient else jittered(SLOW_SECONDS)
        if retry_after.isdigit():
            wait = max(wait, jittered(min(int(retry_after), SLOW_SECONDS)))
        log(f"register answered {status} {response.get('code', '')}; retrying in {wait:.0f} s")
        failures += 1
        time.sleep(wait)


def token_lost(box: Box, token: str) -> bool:
    """Whether the platform rejects the token but accepts the bootstrap secret of this box.

    Raises `ShutDown`. Other errors give False: the check is repeated.
    """
    path = f"/workspaces/{box.workspace_id}/state"
    status, response, _ = call(box, "GET", path, {"Authorization": "Bearer " + token})
    refused = status == 401
    if refused:
        status, response, _ = call(box, "GET", path, {"Authorization": "Bearer " + box.secret})
    if status == 200 and (
        response.get("status") in SHUTDOWN_STATUSES or response.get("deleted") or response.get("paused")
    ):
        raise ShutDown(str(response.get("status")))
    if status == 410 and response.get("action") == "shutdown":
        raise ShutDown(str(response.get("code")))
    return refused and status == 200


def store_token(box: Box, file: TokenFile, token: str) -> None:
    """Write the token, with retries: without the file, a restart of this script would need a new token."""
    failures = 0
    while True:
        try:
            file.write(token)
            return
        except OSError as error:
            log(f"the token cannot be written: {error}")
        time.sleep(backoff(failures))
        failures += 1
        token_lost(box, box.secret)  # raises ShutDown: a box with a full disk must still power off


class Runtime:
    """The process of the runtime. Restarted when it exits; killed when this script exits."""

    def __init__(self, box: Box) -> None:
        self.box = box
        self.process: subprocess.Popen[bytes] | None = None
        self.started = 0.0
        self.failures = 0
        self.start_at = 0.0

    def start(self) -> None:
        """Start the runtime as its user, without the bootstrap secret in its environment."""
        environ = dict(
            self.box.environ,
            WORKSPACE_ID=self.box.workspace_id,
            PLATFORM_URL=self.box.platform_url,
            CONFIGS_DIR=str(self.box.configs),
            RUNTIME_PORT=self.box.port,
        )
        if self.box.data_dir:
            environ["DATA_DIR"] = self.box.data_dir
        account = self.box.account
        if account is not None:
            environ.update(HOME=account.pw_dir, USER=account.pw_name, LOGNAME=account.pw_name)
        self.started = time.monotonic()
        try:
            self.process = subprocess.Popen(  # noqa: S603
                self.box.command, env=environ, start_new_session=True, preexec_fn=_child(account)
            )
            log(f"runtime started, process {self.process.pid}")
        except (OSError, subprocess.SubprocessError) as error:
            self._failed(f"could not be started ({error})")

    def tend(self) -> None:
        """Restart the runtime after its backoff if it has exited."""
        if self.process is None:
            if time.monotonic() >= self.start_at:
                self.start()
        elif self.process.poll() is not None:
            self._kill_rest(signal.SIGKILL)
            self._failed(f"exited with status {self.process.returncode}")

    def stop(self) -> None:
        """Send SIGTERM, then SIGKILL, to the runtime and its children."""
        if self.process is None:
            return
        self._kill_rest(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(STOP_SECONDS)
        self._kill_rest(signal.SIGKILL)
        self.process.wait()
        self.process = None
        self.start_at = 0.0
        log("runtime stopped")

    def _failed(self, how: str) -> None:
        if time.monotonic() - self.started > STEADY_SECONDS:
            self.failures = 0
        wait = backoff(self.failures)
        self.failures += 1
        self.process = None
        self.start_at = time.monotonic() + wait
        log(f"runtime {how}; restarting in {wait:.1f} s")

    def _kill_rest(self, number: int) -> None:
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.process.pid, number)


def _child(account: pwd.struct_passwd | None) -> Callable[[], None]:
    parent = os.getpid()
    prctl = getattr(ctypes.CDLL(None), "prctl", None)

    def prepare() -> None:
        if account is not None:
            os.initgroups(account.pw_name, account.pw_gid)
            os.setgid(account.pw_gid)
            os.setuid(account.pw_uid)
        # If this script is killed, the kernel kills the runtime. Set after setuid, which clears it.
        if prctl is not None:
            prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)

    return prepare


def serve(box: Box, runtime: Runtime) -> NoReturn:
    """Mount the volume, register, then run the runtime and check the token. Ends by `ShutDown` only."""
    if box.data_dir:
        mount_volume(box, lambda: token_lost(box, box.secret))
    file = TokenFile(box)
    token = register(box, file.read())
    store_token(box, file, token)
    check_at = time.monotonic() + jittered(box.watch_seconds)
    while True:
        runtime.tend()
        time.sleep(min(POLL_SECONDS, box.watch_seconds / 4))
        if time.monotonic() < check_at:
            continue
        stored = file.read()
        if stored is None or token_lost(box, stored):
            log("the token is lost: registering again")
            runtime.stop()  # it may have the old token in memory
            token = register(box, token)  # the token in the file was rejected; the previous one may be valid
            store_token(box, file, token)
        else:
            token = stored
        check_at = time.monotonic() + jittered(box.watch_seconds)


def power_off(box: Box) -> None:
    """Power off the machine, with the first command that works."""
    own = box.power_off_command
    for command in [shlex.split(own)] if own else [["systemctl", "poweroff"], ["shutdown", "-h", "now"]]:
        try:
            if subprocess.call(command) == 0:  # noqa: S603
                return
        except OSError as error:
            log(f"{command[0]} failed: {error}")
    log("could not power off: every command failed")


def install(
    source: Path, script: Path, unit: Path, run: Callable[[Sequence[str]], object] = subprocess.check_call
) -> None:
    """Install this script as a systemd service, which starts after reboots and crashes."""
    script.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    temporary = script.with_name(script.name + ".tmp")
    with os.fdopen(os.open(str(temporary), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o700), "wb") as file:
        file.write(source.read_bytes())
    os.replace(str(temporary), str(script))
    unit.write_text(
        "[Unit]\nDescription=Onebox box\nWants=network-online.target\nAfter=network-online.target\n"
        "StartLimitIntervalSec=0\n\n"
        f"[Service]\nExecStart={sys.executable} {script}\nEnvironment=ONEBOX_FOREGROUND=1\n"
        "Restart=always\nRestartSec=5\n\n"
        "[Install]\nWantedBy=multi-user.target\n"
    )
    run(["systemctl", "daemon-reload"])
    run(["systemctl", "enable", unit.name])
    run(
        ["systemctl", "restart", "--no-block", unit.name]
    )  # without --no-block it could wait for cloud-init, which waits for us


def _on_signal(number: int, _frame: FrameType | None) -> None:
    raise SystemExit(128 + number)


def main() -> None:
    """Install the service if systemd runs, else run in the foreground."""
    if Path("/run/systemd/system").is_dir() and not os.environ.get("ONEBOX_FOREGROUND"):
        install(Path(__file__).resolve(), INSTALLED, UNIT)
        log(f"installed as {UNIT.name}")
        return
    box = Box(json.loads(PARAMETERS), dict(os.environ))
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _on_signal)
    runtime = Runtime(box)
    log(f"box of workspace {box.workspace_id}, generation {box.generation}")
    try:
        serve(box, runtime)
    except ShutDown as reason:
        log(f"shutting down, ordered by the platform: {reason}")
        runtime.stop()
        power_off(box)
    finally:
        runtime.stop()


if __name__ == "__main__":
    main()
