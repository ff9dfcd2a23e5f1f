#!/usr/bin/env python3
"""The bootstrap script of a box: mounts its data volume, gets it a token, runs the runtime, ends when told.

Standard library and Python 3.8 only; it is the user data of an instance, so it must stay under 16 KB.
It never shows a secret, and never decides by itself that the box is superseded.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import glob
import http.client
import json
import os
import pwd
import random
import re
import shlex
import signal
import ssl
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import NoReturn
from urllib.parse import urlsplit

PARAMETERS = "{}"

CALL_SECONDS = 10.0
BACKOFF_SECONDS = 1.0
LONGEST_BACKOFF_SECONDS = 30.0
SLOW_SECONDS = 60.0  # after an answer that only an operator can mend: a key, an ID
STOP_SECONDS = 10.0
STEADY_SECONDS = 60.0  # a runtime that lived this long did not fail at its start
POLL_SECONDS = 0.5
OVER = ("superseded", "stopping", "stopped", "deleting", "deleted")
INSTALLED = Path("/opt/onebox/onebox_box.py")
UNIT = Path("/etc/systemd/system/onebox-box.service")
PR_SET_PDEATHSIG = 1
DEVICE = "/dev/sdf"  # as EC2 calls the data volume's attachment
NVME_IOCTL_ADMIN_CMD = 0xC0484E41
BLANK_BYTES = 1 << 20  # every file system and partition table has something in the first MiB

TOKEN = re.compile(r"[\x21-\x7e]{1,512}\Z")  # anything else cannot stand in a header (RFC 9110, section 5.5)


class Over(Exception):
    """Another box, or none, serves the workspace: this one must power off."""


class Box:
    """What this box was told at its launch, and what its environment overrides."""

    def __init__(self, parameters: dict[str, object], environ: dict[str, str]) -> None:
        self.workspace_id = str(parameters["workspace_id"])
        self.generation = str(parameters["generation"])
        self.secret = str(parameters["bootstrap_secret"])
        self.platform_url = str(parameters["platform_url"]).rstrip("/")
        self.command = shlex.split(str(parameters["runtime_command"]))
        user = str(parameters["runtime_user"])
        self.account = pwd.getpwnam(user) if user and os.geteuid() == 0 else None
        self.port = str(parameters["runtime_port"])
        self.configs = Path(environ.get("CONFIGS_DIR") or str(parameters["configs_dir"]))
        self.data_dir = str(parameters.get("data_dir") or "")
        self.device = environ.get("ONEBOX_DATA_DEVICE")
        self.address = environ.get("ONEBOX_BOX_IP")
        self.watch_seconds = float(environ.get("ONEBOX_WATCH_SECONDS") or 60)
        self.power_off_command = environ.get("ONEBOX_POWER_OFF_COMMAND")
        self.environ = environ


def log(text: str) -> None:
    """One line with the time in UTC."""
    sys.stderr.write(time.strftime("%Y-%m-%dT%H:%M:%SZ ", time.gmtime()) + "onebox-box: " + text + "\n")
    sys.stderr.flush()


def jittered(seconds: float) -> float:
    """A tenth more or less, so that boxes started together don't stay together."""
    return seconds * random.uniform(0.9, 1.1)  # noqa: S311 - jitter, nothing secret


def backoff(failures: int) -> float:
    """Full jitter: anything up to a bound that doubles."""
    bound = min(LONGEST_BACKOFF_SECONDS, BACKOFF_SECONDS * 2 ** min(failures, 10))
    return max(0.1, random.uniform(0, bound))  # noqa: S311 - jitter, nothing secret


def call(
    box: Box, method: str, path: str, headers: dict[str, str], body: dict[str, object] | None = None
) -> tuple[int, dict[str, object], str]:
    """Status, JSON body and Retry-After of an answer; status 0 if there was none."""
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
        answer = connection.getresponse()
        data = json.loads(answer.read(1 << 20) or b"{}")
        return answer.status, data if isinstance(data, dict) else {}, answer.getheader("Retry-After") or ""
    except (OSError, http.client.HTTPException, ValueError) as error:
        log(f"{method} {path} failed: {type(error).__name__}")
        return 0, {}, ""
    finally:
        connection.close()


def register(box: Box, held: str | None) -> str:
    """Register until it succeeds; the token to use. A held one is tried too, so one call tells it all."""
    failures = 0
    while True:
        headers = {"Authorization": "Bearer " + (held or box.secret), "X-Bootstrap-Token": box.secret}
        # No URL and no card: the runtime tells its own, and what is known must not be erased.
        status, answer, retry_after = call(
            box, "POST", "/registry/register", headers, {"id": box.workspace_id, "url": ""}
        )
        token = answer.get("auth_token") or held
        if status == 200 and isinstance(token, str) and token:
            log("registered, token " + ("kept" if token == held else "received"))
            return token
        if status == 410 and answer.get("action") == "shutdown":
            raise Over(str(answer.get("code")))
        # 401 included: a misconfigured platform must not cost a box that is the right one.
        transient = status in (0, 200, 408, 425, 429) or status >= 500
        wait = backoff(failures) if transient else jittered(SLOW_SECONDS)
        if retry_after.isdigit():
            wait = max(wait, jittered(min(int(retry_after), SLOW_SECONDS)))
        log(f"register answered {status} {answer.get('code', '')}, again in {wait:.0f} s")
        failures += 1
        time.sleep(wait)


def token_lost(box: Box, token: str) -> bool:
    """Ask for the state; whether the token is no good although the box is the right one.

    Raises Over. Anything unclear changes nothing: the next look will tell.
    """
    path = f"/workspaces/{box.workspace_id}/state"
    status, answer, _ = call(box, "GET", path, {"Authorization": "Bearer " + token})
    refused = status == 401
    if refused:
        status, answer, _ = call(box, "GET", path, {"Authorization": "Bearer " + box.secret})
    if status == 200 and (answer.get("status") in OVER or answer.get("deleted") or answer.get("paused")):
        raise Over(str(answer.get("status")))
    if status == 410 and answer.get("action") == "shutdown":
        raise Over(str(answer.get("code")))
    return refused and status == 200


def keep(box: Box, file: TokenFile, token: str) -> None:
    """Write the token as soon as there is room; a crash would forget one that is in use: a minute lost."""
    failures = 0
    while True:
        try:
            file.write(token)
            return
        except OSError as error:
            log(f"the token cannot be written: {error}")
        time.sleep(backoff(failures))
        failures += 1
        token_lost(box, box.secret)  # raises Over: a full disk must not keep a superseded box


def find_device(box: Box) -> str | None:
    """The data volume's device, whatever the kernel calls it; None if it is not attached yet."""
    for path in [box.device] if box.device else [DEVICE, "/dev/xvdf"]:
        if os.path.exists(path):
            return path
    for path in [] if box.device else sorted(glob.glob("/dev/nvme*n1")):
        with contextlib.suppress(OSError):
            if DEVICE.endswith("/" + nvme_name(path).rpartition("/")[2]):
                return path
    return None


def nvme_name(path: str) -> str:
    """What EC2 calls a disk of a Nitro instance: in the vendor's part of its Identify Controller data."""
    data = ctypes.create_string_buffer(4096)
    command = struct.pack("<BBHIIIQQII6III", 6, *[0] * 6, ctypes.addressof(data), 0, 4096, 1, *[0] * 7)
    with open(path, "rb") as disk:
        fcntl.ioctl(disk, NVME_IOCTL_ADMIN_CMD, bytearray(command))
    return data.raw[3072:3104].decode("ascii", "replace").strip("\0 ")


def mount_volume(box: Box) -> None:
    """Wait for the data volume and mount it; a file system is made on a blank one only."""
    log("waiting for the data volume")
    look_at, failures = time.monotonic() + jittered(box.watch_seconds), 0
    while True:
        device = find_device(box)
        try:
            if device is not None:
                _mount(box, device)
                log(f"data volume {device} is at {box.data_dir}")
                return
        except (OSError, subprocess.CalledProcessError) as error:
            log(f"the data volume cannot be mounted: {error}")
            failures += 1
        if time.monotonic() >= look_at:
            token_lost(box, box.secret)  # raises Over: its volume may be another box's by now
            look_at = time.monotonic() + jittered(box.watch_seconds)
        time.sleep(backoff(failures) if failures else POLL_SECONDS)


def _mount(box: Box, device: str) -> None:
    if os.path.isdir(device):  # a directory stands for the volume
        box.data_dir = device
        return
    if not os.path.ismount(box.data_dir):
        with open(device, "rb") as disk:
            blank = not any(disk.read(BLANK_BYTES))
        if blank:
            log(f"{device} is blank: making a file system")
            subprocess.check_call(["mkfs.ext4", "-q", device])  # noqa: S603, S607
        os.makedirs(box.data_dir, exist_ok=True)
        subprocess.check_call(["mount", device, box.data_dir])  # noqa: S603, S607
    if box.account is not None:
        os.chown(box.data_dir, box.account.pw_uid, box.account.pw_gid)


class TokenFile:
    """`.auth_token`, and beside it whose it is: a volume can outlive the box that wrote on it."""

    def __init__(self, box: Box) -> None:
        self.path = box.configs / ".auth_token"
        self.owner_path = box.configs / ".auth_token.generation"
        self.owner = f"{box.workspace_id} {box.generation}\n"
        self.account = box.account

    def read(self) -> str | None:
        """The token of this generation, if there is one; one of another is wiped."""
        if _read(self.owner_path) == self.owner:
            token = (_read(self.path) or "").strip()
            return token if TOKEN.match(token) else None
        for path in (self.path, self.owner_path):
            with contextlib.suppress(FileNotFoundError):
                path.unlink()
                log(f"wiped {path}: not of this generation")
        return None

    def write(self, token: str) -> None:
        """Both files; a crash between them leaves a token without an owner, which is wiped."""
        if not self.path.parent.is_dir():
            self.path.parent.mkdir(parents=True)
            if self.account is not None:
                os.chown(str(self.path.parent), self.account.pw_uid, self.account.pw_gid)
        self._write(self.path, token)
        self._write(self.owner_path, self.owner)

    def _write(self, path: Path, text: str) -> None:
        temporary = path.with_name(path.name + ".tmp")
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()
        with os.fdopen(os.open(str(temporary), os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(text)
            if self.account is not None:
                os.fchown(file.fileno(), self.account.pw_uid, self.account.pw_gid)
            file.flush()
            os.fsync(file.fileno())
        os.replace(str(temporary), str(path))
        directory = os.open(str(path.parent), os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)


def _read(path: Path) -> str | None:
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError):
        return None


class Runtime:
    """The runtime's process: started again when it dies, gone when this script is."""

    def __init__(self, box: Box) -> None:
        self.box = box
        self.process: subprocess.Popen[bytes] | None = None
        self.started = 0.0
        self.failures = 0
        self.start_at = 0.0

    def start(self) -> None:
        """Start it as its user; the bootstrap secret is not among what it is told."""
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
            self._failed(f"cannot be started ({error})")

    def tend(self) -> None:
        """Notice that it died, and start it again when it is time."""
        if self.process is None:
            if time.monotonic() >= self.start_at:
                self.start()
        elif self.process.poll() is not None:
            self._kill_rest(signal.SIGKILL)
            self._failed(f"ended with {self.process.returncode}")

    def stop(self) -> None:
        """SIGTERM, then SIGKILL to it and its children."""
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
        log(f"runtime {how}, again in {wait:.1f} s")

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
        # After the change of user, which clears it: a killed script leaves no second runtime behind.
        if prctl is not None:
            prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)

    return prepare


def serve(box: Box, runtime: Runtime) -> NoReturn:
    """Volume, token, runtime, watch; for ever, or until Over."""
    if box.data_dir:
        mount_volume(box)
    file = TokenFile(box)
    token = register(box, file.read())
    keep(box, file, token)
    look_at = time.monotonic() + jittered(box.watch_seconds)
    while True:
        runtime.tend()
        time.sleep(min(POLL_SECONDS, box.watch_seconds / 4))
        if time.monotonic() < look_at:
            continue
        held = file.read()
        if held is None or token_lost(box, held):
            log("the token is lost: registering again")
            runtime.stop()  # it may hold a stale one in memory
            token = register(box, token)  # what the file holds now was refused; the one before may live
            keep(box, file, token)
        else:
            token = held
        look_at = time.monotonic() + jittered(box.watch_seconds)


def power_off(box: Box) -> None:
    """Ask for it in each way that there is, until one works."""
    own = box.power_off_command
    for command in [shlex.split(own)] if own else [["systemctl", "poweroff"], ["shutdown", "-h", "now"]]:
        try:
            if subprocess.call(command) == 0:  # noqa: S603
                return
        except OSError as error:
            log(f"{command[0]} failed: {error}")
    log("cannot power off")


def install(
    source: Path, script: Path, unit: Path, run: Callable[[Sequence[str]], object] = subprocess.check_call
) -> None:
    """Become a systemd service, so that the box comes back after a reboot and this script after a crash."""
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
    run(["systemctl", "restart", "--no-block", unit.name])  # blocking, it could wait for cloud-init, and us


def _on_signal(number: int, _frame: FrameType | None) -> None:
    raise SystemExit(128 + number)


def main() -> None:
    """Install where there is systemd, else serve in the foreground."""
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
    except Over as over:
        log(f"told to shut down: {over}")
        runtime.stop()
        power_off(box)
    finally:
        runtime.stop()


if __name__ == "__main__":
    main()
