"""A program with a small disk, as a campaign has one: fills it up, and writes while it is full, and after."""

import sys
from pathlib import Path

from campaign import rooms

BYTES = 8 * 1024 * 1024
"""Such a disk is memory, and what runs beside this needs some, too."""

directory = Path(sys.argv[1])
rooms.enter(["tests.campaign.in_a_room", str(directory)])
if not rooms.small_disk(directory, size=BYTES):
    sys.exit("no disk")
mine = directory / "mine"
with rooms.filled(directory):
    try:
        mine.write_text("x")
    except OSError as error:
        print(error.strerror)  # noqa: T201
mine.write_text("x")
print(mine.read_text())  # noqa: T201
rooms.leave(directory)
