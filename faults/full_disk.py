"""A small disk for PostgreSQL: a mount namespace of our own, a tmpfs in it, and a file that fills it up.

It changes nothing for other processes of the machine; where the kernel forbids it, there is no such disk.
"""

import ctypes
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

IN_NAMESPACE = "ONEBOX_CAMPAIGN_NAMESPACE"
"""Set in the process that is in a namespace of its own."""

DISK_BYTES = 768 * 1024 * 1024
"""A campaign's database with its WAL takes a third of it."""

NAMESPACES = (["--mount"], ["--user", "--map-current-user", "--keep-caps", "--mount"])
"""For root, and for others. These stay who they are: PostgreSQL and the box script look at that."""

MNT_DETACH = 2
"""From sys/mount.h."""

_TRIAL = """
import ctypes, sys
sys.exit(ctypes.CDLL(None).mount(b"none", b"/mnt", b"tmpfs", ctypes.c_ulong(0), b""))
"""
# By the system call: the program `mount` insists on root, who is nobody in such a namespace.

_CHUNK = bytes(256 * 1024)


def enter(arguments: Sequence[str]) -> None:
    """Become the same program in a mount namespace of its own, if that is possible and not done yet."""
    if IN_NAMESPACE in os.environ or not shutil.which("unshare"):
        return
    for options in NAMESPACES:
        command = ["unshare", *options, "--", sys.executable]
        if subprocess.run([*command, "-c", _TRIAL], check=False, capture_output=True).returncode == 0:  # noqa: S603
            os.environ[IN_NAMESPACE] = "1"
            os.execvp(command[0], [*command, "-m", *arguments])  # noqa: S606


def small_disk(directory: Path, *, size: int = DISK_BYTES) -> bool:
    """Put a disk of so many bytes there; whether that was possible."""
    if IN_NAMESPACE not in os.environ:
        return False
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    options = f"size={size},mode=0755".encode()
    mounted: int = ctypes.CDLL(None).mount(
        b"none", os.fsencode(directory), b"tmpfs", ctypes.c_ulong(0), options
    )
    return mounted == 0


def leave(directory: Path) -> None:
    """Take the disk away, so that the directory can be removed."""
    ctypes.CDLL(None).umount2(os.fsencode(directory), MNT_DETACH)


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
