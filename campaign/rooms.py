"""A small disk for PostgreSQL: a mount namespace of our own, a tmpfs in it, and a file that fills it up.

It changes nothing for other processes of the machine; where the kernel forbids it, there is no such disk.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

ENTERED = "ONEBOX_CAMPAIGN_NAMESPACE"
"""Set in the process that is in a namespace of its own."""

DISK_BYTES = 768 * 1024 * 1024
"""A campaign's database with its WAL takes a third of it."""

_CHUNK = bytes(256 * 1024)


def enter(arguments: Sequence[str]) -> None:
    """Become the same program in a mount namespace of its own, if that is possible and not done yet."""
    if ENTERED in os.environ:
        return
    for options in (["--mount"], ["--user", "--map-root-user", "--mount"]):
        command = ["unshare", *options, "--"]
        if shutil.which("unshare") and _can_mount(command):
            os.environ[ENTERED] = "1"
            os.execvp(command[0], [*command, sys.executable, "-m", *arguments])  # noqa: S606


def small_disk(directory: Path) -> bool:
    """Put a disk of `DISK_BYTES` there; whether that was possible."""
    if ENTERED not in os.environ:
        return False
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES},mode=0755", "none", str(directory)]
    return subprocess.run(mount, check=False, capture_output=True).returncode == 0  # noqa: S603


def leave(directory: Path) -> None:
    """Take the disk away, so that the directory can be removed."""
    subprocess.run(["umount", "--lazy", str(directory)], check=False, capture_output=True)  # noqa: S603, S607


@contextmanager
def filled(directory: Path) -> Iterator[None]:
    """Leave no byte free on the disk for the block."""
    filler = directory / "filler"
    try:
        with filler.open("wb", buffering=0) as file:
            try:
                while True:
                    file.write(_CHUNK)
            except OSError:
                pass  # that is all there was
        yield
    finally:
        filler.unlink(missing_ok=True)


def _can_mount(command: Sequence[str]) -> bool:
    trial = [*command, "mount", "-t", "tmpfs", "none", "/mnt"]
    return subprocess.run(trial, check=False, capture_output=True).returncode == 0  # noqa: S603
