"""Host faults of a box, loaded by its Python processes: a clock that jumped, a full disk.

Standard library only. Files in the directory `ONEBOX_AILMENTS` switch the faults on: `clock` holds the
seconds by which wall clocks are ahead; while `full` exists, writes below `CONFIGS_DIR` fail with ENOSPC.
Each effect adds a line to `befell`.
"""

import os
import time

_AILMENTS = os.environ.get("ONEBOX_AILMENTS", "")
_CONFIGS = os.environ.get("CONFIGS_DIR", "")

_Path = str | bytes | os.PathLike[str] | os.PathLike[bytes]


def _note(what: str) -> None:
    with open(os.path.join(_AILMENTS, "befell"), "a") as file:
        file.write(f"{what} {os.path.basename(os.path.dirname(_CONFIGS))}\n")


def _ahead() -> float:
    """Seconds by which the wall clock is ahead."""
    try:
        with open(os.path.join(_AILMENTS, "clock")) as file:
            seconds = float(file.read())
    except (OSError, ValueError):
        return 0.0
    _note("clock")
    return seconds


def _is_config(path: _Path, dir_fd: int | None) -> bool:
    parent = os.getcwd() if dir_fd is None else os.readlink(f"/proc/self/fd/{dir_fd}")
    return os.path.join(parent, os.fsdecode(path)).startswith((_CONFIGS, os.path.realpath(_CONFIGS)))


def _install() -> None:
    now, now_ns, utc, local = time.time, time.time_ns, time.gmtime, time.localtime
    time.time = lambda: now() + _ahead()
    time.time_ns = lambda: now_ns() + int(_ahead() * 1e9)
    time.gmtime = lambda seconds=None: utc(now() + _ahead() if seconds is None else seconds)
    time.localtime = lambda seconds=None: local(now() + _ahead() if seconds is None else seconds)

    real_open = os.open
    full = os.path.join(_AILMENTS, "full")

    def open_where_there_may_be_no_room(
        path: _Path, flags: int, mode: int = 0o777, *, dir_fd: int | None = None
    ) -> int:
        # The file is created or truncated; as on a full disk, the write fails.
        descriptor = real_open(path, flags, mode, dir_fd=dir_fd)
        if not flags & os.O_WRONLY or not _is_config(path, dir_fd) or not os.path.exists(full):
            return descriptor
        os.close(descriptor)
        _note("full")
        return real_open("/dev/full", os.O_WRONLY)

    os.open = open_where_there_may_be_no_room


if _AILMENTS and _CONFIGS:
    _install()
