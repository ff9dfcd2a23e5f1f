"""A program with a small disk: fills it, and writes while it is full and afterwards."""

import sys
from pathlib import Path

from faults import full_disk

BYTES = 8 * 1024 * 1024
"""The disk is memory, and other processes need some too."""

directory = Path(sys.argv[1])
full_disk.enter(["tests.faults.on_a_full_disk", str(directory)])
if not full_disk.small_disk(directory, size=BYTES):
    sys.exit("no disk")
mine = directory / "mine"
with full_disk.filled(directory):
    try:
        mine.write_text("x")
    except OSError as error:
        print(error.strerror)  # noqa: T201
mine.write_text("x")
print(mine.read_text())  # noqa: T201
full_disk.leave(directory)
