"""A part of the box script: the data volume."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import glob
import os
import struct
import subprocess
import time
from collections.abc import Callable

from activities.user_data.box_base import Box, backoff, jittered, log
from activities.user_data.box_files import give, open_directory

DEVICE = "/dev/sdf"  # the device name of the data volume's attachment in EC2
NVME_IOCTL_ADMIN_CMD = 0xC0484E41
BLANK_BYTES = 1 << 20  # file systems and partition tables write to the first MiB
POLL_SECONDS = 0.5


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


def mount_volume(box: Box, check: Callable[[], object]) -> None:
    """Wait for the data volume and mount it. Only a blank one is formatted.

    Meanwhile, `check` runs now and then; it raises `ShutDown` if the volume belongs to a newer box.
    """
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
            check()
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
