"""A race, run as root: the runtime's user swaps its directory for a link while the script writes its token.

Usage: `python -m tests.box.swapping HOME VICTIM USER ROUNDS`. The last write is without the other process.
"""

import os
import pwd
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

from activities.user_data import box_base, box_files


def main(home: str, victim: str, user: str, rounds: str) -> None:
    """Write the token in each round, while another process swaps the directory."""
    parameters: dict[str, object] = {
        "workspace_id": "ws-1", "generation": 1, "bootstrap_secret": "secret", "platform_url": "http://x",
        "runtime_command": "true", "runtime_user": user, "runtime_port": 1, "configs_dir": home + "/configs",
    }  # fmt: skip
    file = box_files.TokenFile(box_base.Box(parameters, {}))
    swapper = os.fork()
    if swapper == 0:
        _swap(Path(home), victim, pwd.getpwnam(user))
    try:
        for _ in range(int(rounds)):
            with suppress(OSError):
                file.read()
                file.write("token")
    finally:
        os.kill(swapper, signal.SIGKILL)
        os.waitpid(swapper, 0)
    with suppress(OSError):
        Path(home, "configs").unlink()
    file.write("token")


def _swap(home: Path, victim: str, account: pwd.struct_passwd) -> NoReturn:
    os.setgroups([])
    os.setgid(account.pw_gid)
    os.setuid(account.pw_uid)
    configs, aside = home / "configs", home / "aside"
    while True:
        with suppress(OSError):
            configs.rename(aside)
        with suppress(OSError):
            configs.symlink_to(victim)
        with suppress(OSError):
            configs.unlink()
        with suppress(OSError):
            for left in aside.iterdir():
                left.unlink()
            aside.rmdir()


if __name__ == "__main__":
    main(*sys.argv[1:])
