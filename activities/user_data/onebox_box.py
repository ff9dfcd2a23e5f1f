#!/usr/bin/env python3
"""The bootstrap script of a box: mounts the data volume, registers, runs the runtime, powers off on order.

It is the user data of an instance: one file, Python 3.8, standard library only, under 16 KB compressed.
It never logs a secret. Only the platform decides that the box is superseded.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
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
import stat
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
MAX_BACKOFF_SECONDS = 30.0
SLOW_SECONDS = 60.0  # retry delay after an error that needs an operator, such as a wrong key or ID
STOP_SECONDS = 10.0
STEADY_SECONDS = 60.0  # a runtime that ran this long resets the restart backoff
POLL_SECONDS = 0.5
SHUTDOWN_STATUSES = ("superseded", "stopping", "stopped", "deleting", "deleted")
INSTALLED = Path("/opt/onebox/onebox_box.py")
UNIT = Path("/etc/systemd/system/onebox-box.service")
PR_SET_PDEATHSIG = 1
DEVICE = "/dev/sdf"  # the device name of the data volume's attachment in EC2
NVME_IOCTL_ADMIN_CMD = 0xC0484E41
BLANK_BYTES = 1 << 20  # file systems and partition tables write to the first MiB
MAX_LINKS = 40  # as in Linux
MAX_FILE_BYTES = 4096  # a token has at most 512 characters

TOKEN = re.compile(r"[\x21-\x7e]{1,512}\Z")  # valid in an HTTP header (RFC 9110, section 5.5)


class ShutDown(Exception):
    """The platform ordered this box to power off: superseded, or the workspace is stopped or deleted."""


class Box:
    """The parameters of this box, with overrides from its environment."""

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
    """Write a log line with the time in UTC."""
    sys.stderr.write(time.strftime("%Y-%m-%dT%H:%M:%SZ ", time.gmtime()) + "onebox-box: " + text + "\n")
    sys.stderr.flush()


def jittered(seconds: float) -> float:
    """Vary by 10 % in both directions, so that boxes do not call in step."""
    return seconds * random.uniform(0.9, 1.1)  # noqa: S311 - jitter, nothing secret


def backoff(failures: int) -> float:
    """Exponential backoff with full jitter, in seconds."""
    bound = min(MAX_BACKOFF_SECONDS, BACKOFF_SECONDS * 2 ** min(failures, 10))
    return max(0.1, random.uniform(0, bound))  # noqa: S311 - jitter, nothing secret


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


def find_device(box: Box) -> str | None:
    """The device of the data volume, under any kernel name; None if it is not attached yet."""
    for path in [box.device] if box.device else [DEVICE, "/dev/xvdf"]:
        if os.path.exists(path):
            return path
    for path in [] if box.device else sorted(glob.glob("/dev/nvme*n1")):
        with contextlib.suppress(OSError):
            if DEVICE.endswith("/" + nvme_name(path).rpartition("/")[2]):
                return path
    return None


def nvme_name(path: str) -> str:
    """EC2's device name of an NVMe disk, from the vendor-specific part of Identify Controller."""
    data = ctypes.create_string_buffer(4096)
    command = struct.pack("<BBHIIIQQII6III", 6, *[0] * 6, ctypes.addressof(data), 0, 4096, 1, *[0] * 7)
    with open(path, "rb") as disk:
        fcntl.ioctl(disk, NVME_IOCTL_ADMIN_CMD, bytearray(command))
    return data.raw[3072:3104].decode("ascii", "replace").strip("\0 ")


def mount_volume(box: Box) -> None:
    """Wait for the data volume and mount it. Only a blank one is formatted."""
    log("waiting for the data volume")
    check_at, failures = time.monotonic() + jittered(box.watch_seconds), 0
    while True:
        device = find_device(box)
        try:
            if device is not None:
                _mount(box, device)
                log(f"mounted data volume {device} at {box.data_dir}")
                return
        except (OSError, subprocess.CalledProcessError) as error:
            log(f"the data volume cannot be mounted: {error}")
            failures += 1
        if time.monotonic() >= check_at:
            token_lost(box, box.secret)  # raises ShutDown: the volume may belong to a newer box
            check_at = time.monotonic() + jittered(box.watch_seconds)
        time.sleep(backoff(failures) if failures else POLL_SECONDS)


def _mount(box: Box, device: str) -> None:
    if os.path.isdir(device):  # without EC2, a directory is the volume
        box.data_dir = device
        return
    if not os.path.ismount(box.data_dir):
        with open(device, "rb") as disk:
            blank = not any(disk.read(BLANK_BYTES))
        if blank:
            log(f"{device} is blank: creating a file system")
            subprocess.check_call(["mkfs.ext4", "-q", device])  # noqa: S603, S607
        os.close(open_directory(box.data_dir, box.account, create=True))
        subprocess.check_call(["mount", device, box.data_dir])  # noqa: S603, S607
    directory = open_directory(box.data_dir, box.account)
    try:
        give(directory, box.account)
    finally:
        os.close(directory)


def give(descriptor: int, account: pwd.struct_passwd | None) -> None:
    """Make the runtime's user the owner of an open file. A path could be swapped meanwhile."""
    if account is not None:
        os.fchown(descriptor, account.pw_uid, account.pw_gid)


def open_directory(path: str, account: pwd.struct_passwd | None, *, create: bool = False) -> int:
    """A descriptor of the directory. With `create`, missing directories are created; the last is the user's.

    As root, follow only links of root in directories of root: the runtime's user may swap all others.
    """
    if account is None:
        if create:
            os.makedirs(path, exist_ok=True)
        return os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    names, links, created = os.path.abspath(path).split("/")[::-1], 0, False  # the next name comes last
    directory = os.open("/", os.O_PATH | os.O_DIRECTORY)
    try:
        while names:
            name = names.pop()
            if not name:
                continue
            target = _link_target(directory, name)
            if target is not None:
                links += 1
                if links > MAX_LINKS:
                    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
                names += target.split("/")[::-1]
                name = "/" if target.startswith("/") else "."
            elif create:
                created = _make(directory, name)
            inner = os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=directory)
            os.close(directory)
            directory = inner
        opened = os.open(".", os.O_RDONLY | os.O_DIRECTORY, dir_fd=directory)
    finally:
        os.close(directory)
    # The user may have put another directory in the place of the new one: root's are not given away.
    if created and os.fstat(opened).st_uid == 0 and not os.listdir(opened):
        give(opened, account)
    return opened


def _make(directory: int, name: str) -> bool:
    """Create a directory; False if there is something with that name."""
    try:
        os.mkdir(name, dir_fd=directory)
    except FileExistsError:
        return False
    return True


def _link_target(directory: int, name: str) -> str | None:
    """The target of a symbolic link; None for anything else. Raises `OSError` for a link that others own."""
    try:
        entry = os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return None
    if not stat.S_ISLNK(entry.st_mode):
        return None
    around = os.fstat(directory)
    others_write = around.st_mode & 0o022 and not around.st_mode & stat.S_ISVTX
    if entry.st_uid or around.st_uid or others_write:
        raise OSError(errno.ELOOP, "a user other than root controls this link in the path", name)
    return os.readlink(name, dir_fd=directory)


class TokenFile:
    """`.auth_token`, and a file with the generation that owns it: a volume may outlive its box.

    The runtime's user may own the directory and put anything there. Nothing is followed, waited for, or used
    by its path.
    """

    NAME = ".auth_token"
    OWNER_NAME = ".auth_token.generation"

    def __init__(self, box: Box) -> None:
        self.path = str(box.configs)
        self.owner = f"{box.workspace_id} {box.generation}\n"
        self.account = box.account

    def read(self) -> str | None:
        """The token of this generation, if there is one. A token of another generation is removed."""
        try:
            directory = open_directory(self.path, self.account)
        except OSError:
            return None
        try:
            if _read(directory, self.OWNER_NAME) == self.owner:
                token = (_read(directory, self.NAME) or "").strip()
                return token if TOKEN.match(token) else None
            for name in (self.NAME, self.OWNER_NAME):
                _remove(directory, name)
        except OSError as error:
            log(f"a token of another generation cannot be removed: {error}")
        finally:
            os.close(directory)
        return None

    def write(self, token: str) -> None:
        """Write both files. After a crash between them, `read` removes the token without an owner."""
        directory = open_directory(self.path, self.account, create=True)
        try:
            self._write(directory, self.NAME, token)
            self._write(directory, self.OWNER_NAME, self.owner)
        finally:
            os.close(directory)

    def _write(self, directory: int, name: str, text: str) -> None:
        temporary = name + ".tmp"
        _remove(directory, temporary)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
        with os.fdopen(os.open(temporary, flags, 0o600, dir_fd=directory), "w") as file:
            file.write(text)
            give(file.fileno(), self.account)
            file.flush()
            os.fsync(file.fileno())
        try:
            os.replace(temporary, name, src_dir_fd=directory, dst_dir_fd=directory)
        except IsADirectoryError:
            _remove(directory, name)
            os.replace(temporary, name, src_dir_fd=directory, dst_dir_fd=directory)
        os.fsync(directory)


def _read(directory: int, name: str) -> str | None:
    """The text of a regular file; None for anything else. O_NONBLOCK: a FIFO would wait for a writer."""
    try:
        if not stat.S_ISREG(os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode):
            return None
        file = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=directory)
        try:
            return os.read(file, MAX_FILE_BYTES).decode()
        finally:
            os.close(file)
    except (OSError, UnicodeDecodeError):
        return None


def _remove(directory: int, name: str) -> None:
    """Remove a file of any type. A directory is moved aside with its content."""
    try:
        if stat.S_ISDIR(os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode):
            aside = f"{name}.{time.time_ns()}"
            os.rename(name, aside, src_dir_fd=directory, dst_dir_fd=directory)
            log(f"moved the directory {name} aside, to {aside}")
        else:
            os.unlink(name, dir_fd=directory)
            log(f"removed {name}: another generation or attempt left it")
    except FileNotFoundError:
        return


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
        mount_volume(box)
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
