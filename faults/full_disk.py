"""A small disk for PostgreSQL: a private mount namespace with a tmpfs, and a file that fills it.

Other processes of the machine are not affected. Where the kernel forbids it, there is no such disk.
"""

import ctypes
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

IN_NAMESPACE = "ONEBOX_FAULTS_NAMESPACE"
"""Set in the process that has its own namespace."""

DISK_BYTES = 768 * 1024 * 1024
"""The database and the WAL of a run take a third of it."""

NAMESPACES = (["--mount"], ["--user", "--map-current-user", "--keep-caps", "--mount"])
"""unshare options for root, and for other users. Other users keep their ID, because PostgreSQL and the
box script check it."""

MNT_DETACH = 2
"""From sys/mount.h."""

_TRIAL = """
import ctypes, sys
sys.exit(ctypes.CDLL(None).mount(b"none", b"/mnt", b"tmpfs", ctypes.c_ulong(0), b""))
"""
# By system call: the program `mount` requires root, which this user is not in the namespace.

_CHUNK = bytes(256 * 1024)


def enter(arguments: Sequence[str]) -> None:
    """Re-execute this program in its own mount namespace, if possible and not done yet."""
    if IN_NAMESPACE in os.environ or not shutil.which("unshare"):
        return
    for options in NAMESPACES:
        command = ["unshare", *options, "--", sys.executable]
        if subprocess.run([*command, "-c", _TRIAL], check=False, capture_output=True).returncode == 0:  # noqa: S603
            os.environ[IN_NAMESPACE] = "1"
            os.execvp(command[0], [*command, "-m", *arguments])  # noqa: S606


def small_disk(directory: Path, *, size: int = DISK_BYTES) -> bool:
    """Mount a disk of this size. Returns whether it was possible."""
    if IN_NAMESPACE not in os.environ:
        return False
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    options = f"size={size},mode=0755".encode()
    mounted: int = ctypes.CDLL(None).mount(
        b"none", os.fsencode(directory), b"tmpfs", ctypes.c_ulong(0), options
    )
    return mounted == 0


def leave(directory: Path) -> None:
    """Unmount the disk, so that the directory can be removed."""
    ctypes.CDLL(None).umount2(os.fsencode(directory), MNT_DETACH)


@contextmanager
def filled(directory: Path) -> Iterator[None]:
    """Fill the disk for the duration of the block."""
    filler = directory / "filler"
    try:
        with filler.open("wb", buffering=0) as file:
            try:
                while True:
                    file.write(_CHUNK)
            except OSError:
                pass  # the disk is full
        yield
    finally:
        filler.unlink(missing_ok=True)
